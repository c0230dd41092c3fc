//! What an operator does with dead letters: send them back, or forget them.

use std::collections::HashSet;
use std::time::Duration;

use thiserror::Error;

use crate::delivery::{DeadCause, DeliveryId};
use crate::queue::contract::{DeadFilter, MAX_BATCH, QueueAdmin, QueueError, Requeued};

/// More letters of one cause than any store keeps.
const EVERY_LETTER: usize = 1_000_000;

/// Which letters.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These, by their ids as the operator wrote them. A name that is there twice counts once.
    Named(Vec<String>),
    /// All that pass the filter at the moment of the call, and none that dies later.
    Every(DeadFilter),
}

/// What became of letters that were to be requeued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Back in the queue.
    pub requeued: u64,
    /// Letters that cannot be: their text is gone.
    pub skipped: u64,
    /// Names that are no dead letter's.
    pub unknown: Vec<String>,
}

/// What became of letters that were to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Forgotten.
    pub purged: u64,
    /// Names that are no dead letter's.
    pub unknown: Vec<String>,
}

/// The store failed on the way. What was done is done, and doing it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{error}{}", if *.done > 0 { format!("; {done} done before, run it again for the rest") } else { String::new() })]
pub struct Interrupted {
    /// Letters that were done with before.
    pub done: u64,
    /// Why.
    pub error: QueueError,
}

impl Interrupted {
    fn after(done: u64) -> impl FnOnce(QueueError) -> Self {
        move |error| Self { done, error }
    }
}

/// Sends the chosen letters back to the queue, each alone, with a deadline `deadline` from now.
///
/// A letter that dies again while this runs is not sent back a second time.
pub async fn requeue(
    queue: &dyn QueueAdmin,
    selection: &Selection,
    deadline: Duration,
) -> Result<Returned, Interrupted> {
    let requeue = async |ids: &[DeliveryId]| queue.requeue(ids, deadline).await;
    return_letters(queue, selection, requeue).await
}

/// What [`requeue`] would do now; nothing is changed.
pub async fn would_requeue(queue: &dyn QueueAdmin, selection: &Selection) -> Result<Returned, Interrupted> {
    let look = async |ids: &[DeliveryId]| {
        let mut found = Requeued::default();
        for id in ids {
            match queue.dead_letter(id).await? {
                Some(letter) if letter.payload.is_some() => found.requeued += 1,
                Some(_) => found.skipped += 1,
                None => found.unknown += 1,
            }
        }
        Ok(found)
    };
    return_letters(queue, selection, look).await
}

/// Forgets the chosen letters. The counts of the store stay.
pub async fn purge(queue: &dyn QueueAdmin, selection: &Selection) -> Result<Purged, Interrupted> {
    purge_letters(queue, selection, async |ids: &[DeliveryId]| queue.purge(ids).await).await
}

/// What [`purge`] would do now; nothing is changed.
pub async fn would_purge(queue: &dyn QueueAdmin, selection: &Selection) -> Result<Purged, Interrupted> {
    let look = async |ids: &[DeliveryId]| {
        let mut found = 0;
        for id in ids {
            found += u64::from(queue.dead_letter(id).await?.is_some());
        }
        Ok(found)
    };
    purge_letters(queue, selection, look).await
}

/// A call's worth of letters.
struct Batch {
    ids: Vec<DeliveryId>,
    /// The one letter as the operator wrote it, `None` when a filter chose.
    name: Option<String>,
}

async fn return_letters(
    queue: &dyn QueueAdmin,
    selection: &Selection,
    act: impl AsyncFn(&[DeliveryId]) -> Result<Requeued, QueueError>,
) -> Result<Returned, Interrupted> {
    let Chosen { batches, malformed } = choose(queue, selection).await?;
    let mut returned = Returned { unknown: malformed, ..Returned::default() };
    for batch in batches {
        let done = act(&batch.ids).await.map_err(Interrupted::after(returned.requeued))?;
        returned.requeued += done.requeued;
        returned.skipped += done.skipped;
        returned.unknown.extend(batch.name.filter(|_| done.unknown > 0));
    }
    Ok(returned)
}

async fn purge_letters(
    queue: &dyn QueueAdmin,
    selection: &Selection,
    act: impl AsyncFn(&[DeliveryId]) -> Result<u64, QueueError>,
) -> Result<Purged, Interrupted> {
    let Chosen { batches, malformed } = choose(queue, selection).await?;
    let mut purged = Purged { unknown: malformed, ..Purged::default() };
    for batch in batches {
        let done = act(&batch.ids).await.map_err(Interrupted::after(purged.purged))?;
        purged.purged += done;
        purged.unknown.extend(batch.name.filter(|_| done == 0));
    }
    Ok(purged)
}

/// A selection, ready to be worked off.
struct Chosen {
    batches: Vec<Batch>,
    /// Names that cannot be any letter's.
    malformed: Vec<String>,
}

async fn choose(queue: &dyn QueueAdmin, selection: &Selection) -> Result<Chosen, Interrupted> {
    match selection {
        Selection::Named(names) => Ok(by_name(names)),
        Selection::Every(filter) => {
            let ids = snapshot(queue, filter).await.map_err(Interrupted::after(0))?;
            let batches = ids.chunks(MAX_BATCH).map(|ids| Batch { ids: ids.to_vec(), name: None });
            Ok(Chosen { batches: batches.collect(), malformed: Vec::new() })
        }
    }
}

/// One letter a call, so that the unknown ones can be told by name: a store only counts them.
fn by_name(names: &[String]) -> Chosen {
    let mut seen = HashSet::new();
    let mut chosen = Chosen { batches: Vec::new(), malformed: Vec::new() };
    for name in names.iter().filter(|name| seen.insert(name.as_str())) {
        match name.parse() {
            Ok(id) => chosen.batches.push(Batch { ids: vec![id], name: Some(name.clone()) }),
            Err(_) => chosen.malformed.push(name.clone()),
        }
    }
    chosen
}

/// All letters that pass `filter` now, the oldest first. Complete before anything is done with the first,
/// so that a requeued letter that dies again is not met a second time.
async fn snapshot(queue: &dyn QueueAdmin, filter: &DeadFilter) -> Result<Vec<DeliveryId>, QueueError> {
    let causes = filter.cause.map_or(DeadCause::ALL.to_vec(), |cause| vec![cause]);
    let mut found = Vec::new();
    // Cause by cause: what a store keeps is bounded for each, and so is the answer.
    for cause in causes {
        let filter = DeadFilter { cause: Some(cause), ..filter.clone() };
        let letters = queue.dead_letters(&filter, EVERY_LETTER).await?;
        found.extend(letters.into_iter().map(|letter| (letter.died_at, letter.id)));
    }
    found.sort();
    let mut seen = HashSet::new();
    Ok(found.into_iter().map(|(_, id)| id).filter(|id| seen.insert(id.clone())).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::Timestamp;
    use crate::message::MessageId;
    use crate::queue::contract::{DeadLetter, DeadLetterText, MessageStatus, Stats};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A store of dead letters: id, cause and whether the text is still there.
    #[derive(Default)]
    struct Letters {
        kept: Mutex<BTreeMap<DeliveryId, (DeadCause, bool)>>,
        /// Letters that were taken out, call by call.
        calls: Mutex<Vec<Vec<DeliveryId>>>,
        /// Requeued letters die again at once.
        hopeless: bool,
        /// Fails after so many changing calls.
        breaks_after: Option<usize>,
    }

    impl Letters {
        fn with(count: u16) -> Self {
            let letters = Self::default();
            for index in 1..=count {
                letters.kept.lock().unwrap().insert(id(index), (DeadCause::Exhausted, true));
            }
            letters
        }

        fn count(&self) -> usize {
            self.kept.lock().unwrap().len()
        }

        fn calls(&self) -> Vec<usize> {
            self.calls.lock().unwrap().iter().map(Vec::len).collect()
        }

        fn begin(&self, ids: &[DeliveryId]) -> Result<(), QueueError> {
            assert!((1..=MAX_BATCH).contains(&ids.len()));
            let mut calls = self.calls.lock().unwrap();
            if self.breaks_after == Some(calls.len()) {
                return Err(QueueError::Unavailable("gone".to_owned()));
            }
            calls.push(ids.to_vec());
            Ok(())
        }
    }

    fn id(index: u16) -> DeliveryId {
        DeliveryId { message: MessageId::of_source("test", "1").unwrap(), index }
    }

    fn letter(id: &DeliveryId, cause: DeadCause) -> DeadLetter {
        DeadLetter {
            id: id.clone(),
            channel: if id.index.is_multiple_of(2) { "sms" } else { "slack" }.to_owned(),
            destination: None,
            subscriber: String::new(),
            cause,
            attempts: 0,
            maybe_sent: false,
            accepted_at: Timestamp::from_millis(0),
            died_at: Timestamp::from_millis(id.index.into()),
            history: Vec::new(),
        }
    }

    #[async_trait]
    impl QueueAdmin for Letters {
        async fn stats(&self) -> Result<Stats, QueueError> {
            Ok(Stats::default())
        }

        async fn status(&self, _: &MessageId) -> Result<Option<MessageStatus>, QueueError> {
            Ok(None)
        }

        async fn dead_letters(
            &self,
            filter: &DeadFilter,
            limit: usize,
        ) -> Result<Vec<DeadLetter>, QueueError> {
            let kept = self.kept.lock().unwrap();
            let letters = kept.iter().rev().map(|(id, (cause, _))| letter(id, *cause));
            Ok(letters.filter(|letter| filter.admits(letter)).take(limit).collect())
        }

        async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError> {
            let found = self.kept.lock().unwrap().get(id).copied();
            Ok(found.map(|(cause, whole)| DeadLetterText {
                letter: letter(id, cause),
                payload: whole.then(Vec::new),
            }))
        }

        async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError> {
            assert_eq!(deadline, MINUTE);
            self.begin(ids)?;
            let mut kept = self.kept.lock().unwrap();
            let mut done = Requeued::default();
            for id in ids {
                match kept.get(id) {
                    Some((_, true)) => {
                        done.requeued += 1;
                        if !self.hopeless {
                            kept.remove(id);
                        }
                    }
                    Some((_, false)) => done.skipped += 1,
                    None => done.unknown += 1,
                }
            }
            Ok(done)
        }

        async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError> {
            self.begin(ids)?;
            let mut kept = self.kept.lock().unwrap();
            Ok(ids.iter().filter(|id| kept.remove(*id).is_some()).count() as u64)
        }

        async fn audit(&self) -> Result<Vec<String>, QueueError> {
            Ok(Vec::new())
        }

        async fn repair(&self) -> Result<Vec<String>, QueueError> {
            Ok(Vec::new())
        }
    }

    fn named(names: &[&str]) -> Selection {
        Selection::Named(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn every() -> Selection {
        Selection::Every(DeadFilter::default())
    }

    #[tokio::test]
    async fn all_letters_go_back_in_batches_oldest_first() {
        let letters = Letters::with(300);
        let returned = requeue(&letters, &every(), MINUTE).await.unwrap();
        assert_eq!(returned, Returned { requeued: 300, ..Returned::default() });
        assert_eq!((letters.count(), letters.calls()), (0, vec![128, 128, 44]));
        assert_eq!(letters.calls.lock().unwrap()[0][0], id(1));
    }

    #[tokio::test]
    async fn a_letter_that_dies_again_is_not_sent_back_in_a_loop() {
        let letters = Letters { hopeless: true, ..Letters::with(200) };
        let returned = requeue(&letters, &every(), MINUTE).await.unwrap();
        assert_eq!(returned.requeued, 200);
        assert_eq!(letters.calls(), [128, 72]);
    }

    #[tokio::test]
    async fn a_filter_chooses_and_nobody_else_is_touched() {
        let letters = Letters::with(10);
        letters.kept.lock().unwrap().insert(id(20), (DeadCause::Expired, true));
        let filter = DeadFilter {
            channel: Some("sms".to_owned()),
            cause: Some(DeadCause::Exhausted),
            ..DeadFilter::default()
        };
        let selection = Selection::Every(filter);
        assert_eq!(would_requeue(&letters, &selection).await.unwrap().requeued, 5);
        assert_eq!(would_purge(&letters, &selection).await.unwrap().purged, 5);
        assert!(letters.calls().is_empty());
        assert_eq!(purge(&letters, &selection).await.unwrap().purged, 5);
        assert_eq!(letters.count(), 6);
    }

    #[tokio::test]
    async fn names_that_are_no_letters_are_told_and_the_others_are_done() {
        let letters = Letters::with(3);
        letters.kept.lock().unwrap().insert(id(3), (DeadCause::Exhausted, false));
        let names = ["test:1/9", "nonsense", "test:1/1", "test:1/3", "test:1/1"];
        let expected =
            Returned { requeued: 1, skipped: 1, unknown: vec!["nonsense".to_owned(), "test:1/9".to_owned()] };
        assert_eq!(would_requeue(&letters, &named(&names)).await.unwrap(), expected);
        assert_eq!(requeue(&letters, &named(&names), MINUTE).await.unwrap(), expected);
        assert_eq!(letters.count(), 2);
        let purged = purge(&letters, &named(&["test:1/2", "test:1/1"])).await.unwrap();
        assert_eq!(purged, Purged { purged: 1, unknown: vec!["test:1/1".to_owned()] });
    }

    #[tokio::test]
    async fn a_store_that_fails_on_the_way_leaves_what_was_done() {
        let letters = Letters { breaks_after: Some(1), ..Letters::with(200) };
        let stopped = requeue(&letters, &every(), MINUTE).await.unwrap_err();
        assert_eq!(stopped.done, 128);
        let told = "the queue is unavailable: gone; 128 done before, run it again for the rest";
        assert_eq!(stopped.to_string(), told);
        let stopped = purge(&Letters { breaks_after: Some(0), ..Letters::with(1) }, &every()).await;
        assert_eq!(stopped.unwrap_err().to_string(), "the queue is unavailable: gone");
    }
}
