//! The book of a fault test: what was posted and answered, when something was broken, and, when all is at
//! rest, the one check that every fault test ends with.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sms_broadcaster::delivery::DeliveryState;
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{DeadFilter, Stats};
use tokio::task::JoinSet;

use super::figures::Figures;
use super::installation::{Installation, LOOK, Poster, RECIPIENTS, sid};
use super::provider::{Provider, Received};

/// The sender of every text of a fault test.
pub(crate) const SENDER: &str = "+12223334444";

/// How long a message that is refused is brought again and again.
const STUBBORNNESS: Duration = Duration::from_secs(120);

/// How long it may take until all is at rest.
const PATIENCE: Duration = Duration::from_secs(240);

/// What was posted and what was broken.
#[derive(Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    posts: BTreeMap<u32, Post>,
    faults: Vec<Instant>,
}

#[derive(Clone, Copy)]
struct Post {
    /// When it was first answered 200.
    taken: Option<Instant>,
}

/// What a check lets pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Sends that were accepted beyond the first.
    pub(crate) duplicates: usize,
    /// Deliveries that end dead or expired.
    pub(crate) dead: usize,
    /// Of these, how many the provider never accepted.
    pub(crate) unsent: usize,
    /// Messages answered 200 that the store may not know: a failover to a server that never had them.
    pub(crate) lost: usize,
    /// Whether the store may have forgotten messages: somebody emptied it.
    pub(crate) forgotten: bool,
}

impl Ledger {
    /// An empty book, to be shared.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts one message; whether it was answered 200.
    pub(crate) async fn post(&self, poster: &Poster, ingress: u16, number: u32) -> bool {
        self.post_from(SENDER, poster, ingress, number).await == Some(200)
    }

    /// Posts one message of another sender; the status of the answer, `None` without one.
    pub(crate) async fn post_from(
        &self,
        sender: &str,
        poster: &Poster,
        ingress: u16,
        number: u32,
    ) -> Option<u16> {
        self.book().posts.entry(number).or_insert(Post { taken: None });
        let answer = poster.post(ingress, &sid(number), sender, &text(number)).await;
        let is_taken = answer == Some(200);
        if is_taken {
            self.book().posts.entry(number).and_modify(|post| {
                post.taken.get_or_insert_with(Instant::now);
            });
        }
        answer
    }

    /// When message `number` was first answered 200.
    pub(crate) fn taken_at(&self, number: u32) -> Option<Instant> {
        self.book().posts.get(&number).and_then(|post| post.taken)
    }

    /// Messages that were answered 200 and that the provider never took for one of their recipients.
    pub(crate) fn missing(&self, provider: &Provider) -> Vec<u32> {
        let sent = Sent::of(&provider.requests());
        let arrived = |number| RECIPIENTS.iter().all(|recipient| !sent.times(number, recipient).is_empty());
        let posts = self.book().posts.clone();
        let taken = posts.iter().filter(|(_, post)| post.taken.is_some()).map(|(number, _)| *number);
        taken.filter(|number| !arrived(*number)).collect()
    }

    /// Posts messages, so many at once, to one ingress after another; what is refused is brought again, as
    /// by a provider's fallback. Returns when all are taken.
    pub(crate) async fn post_all(
        self: &Arc<Self>,
        poster: &Poster,
        ingresses: &[u16],
        numbers: Range<u32>,
        at_once: usize,
    ) {
        let mut posting = JoinSet::new();
        for number in numbers {
            if posting.len() >= at_once {
                posting.join_next().await.expect("there is one").expect("the message is taken");
            }
            let (ledger, poster, ingresses) = (Arc::clone(self), poster.clone(), ingresses.to_vec());
            posting.spawn(async move {
                let end = Instant::now() + STUBBORNNESS;
                for ingress in ingresses.iter().cycle().skip(number as usize % ingresses.len()) {
                    if ledger.post(&poster, *ingress, number).await {
                        return;
                    }
                    assert!(Instant::now() < end, "message {number} was refused for {STUBBORNNESS:?}");
                    tokio::time::sleep(LOOK).await;
                }
            });
        }
        while let Some(posted) = posting.join_next().await {
            posted.expect("the message is taken");
        }
    }

    /// How many messages were answered 200 so far.
    pub(crate) fn taken(&self) -> usize {
        self.book().posts.values().filter(|post| post.taken.is_some()).count()
    }

    /// Notes that something was broken just now.
    pub(crate) fn fault(&self) {
        self.book().faults.push(Instant::now());
    }

    /// Waits until all is at rest and checks everything that is promised:
    ///
    /// * what was answered 200 is known, and each of its deliveries has ended in one state;
    /// * what is said to be delivered was accepted by the provider; what is said to be dead and was accepted
    ///   all the same is said to be perhaps sent;
    /// * nothing else was sent, and nothing more often than allowed;
    /// * the books add up, by the store and by `smsctl`, and the audit finds nothing.
    pub(crate) async fn check(
        &self,
        installation: &Installation,
        provider: &Provider,
        allowed: Allowed,
    ) -> Figures {
        let store = installation.store();
        let stats = at_rest(installation).await;
        let (posts, faults) = {
            let book = self.book();
            (book.posts.clone(), book.faults.clone())
        };
        let sent = Sent::of(&provider.requests());
        let recipients = RECIPIENTS;
        let mut figures =
            Figures { faults: faults.len(), duplicates_bound: allowed.duplicates, ..Figures::default() };

        let mut ended = HashMap::new();
        let (mut accepted, mut unsent) = (0, 0);
        for (number, post) in &posts {
            let id = MessageId::twilio(&sid(*number)).expect("a MessageSid");
            let Some(status) = store.admin.status(&id).await.expect("the store answers") else {
                figures.lost += usize::from(post.taken.is_some() && !allowed.forgotten);
                assert!(
                    figures.lost <= allowed.lost,
                    "message {number} was answered 200 and is lost, as are {} others",
                    figures.lost - 1
                );
                continue;
            };
            accepted += 1;
            figures.messages += usize::from(post.taken.is_some());
            assert!(status.expanded, "message {number} was not routed: {status:?}");
            assert_eq!(status.deliveries.len(), recipients.len(), "message {number}: {status:?}");
            for (delivery, recipient) in status.deliveries.iter().zip(recipients) {
                figures.deliveries += 1;
                *ended.entry(delivery.state.as_str()).or_insert(0_u64) += 1;
                let times = sent.times(*number, recipient);
                let what = || format!("message {number} to {recipient}: {delivery:?}");
                match delivery.state {
                    DeliveryState::Delivered => assert!(!times.is_empty(), "never sent: {}", what()),
                    DeliveryState::Dead | DeliveryState::Expired => figures.dead += 1,
                    DeliveryState::Pending => panic!("not at rest: {}", what()),
                }
                unsent += usize::from(times.is_empty());
                figures.duplicates += times.len().saturating_sub(1);
                if let (Some(taken), Some(first)) = (post.taken, times.first()) {
                    figures.latencies.push(first.saturating_duration_since(taken));
                }
            }
        }
        for (number, recipient) in sent.0.keys() {
            assert!(posts.contains_key(number), "{recipient} was sent message {number}, which nobody posted");
        }
        assert!(
            figures.duplicates <= allowed.duplicates,
            "{} duplicates where {} are allowed",
            figures.duplicates,
            allowed.duplicates
        );
        assert!(
            figures.dead <= allowed.dead,
            "{} deliveries are dead where {} may be: {:?}",
            figures.dead,
            allowed.dead,
            store.admin.dead_letters(&DeadFilter::default(), 20).await
        );
        assert!(
            unsent <= allowed.unsent,
            "{unsent} deliveries never arrived where {} may not",
            allowed.unsent
        );
        for letter in store.admin.dead_letters(&DeadFilter::default(), 10_000).await.expect("it answers") {
            let Some(number) = number_of(&letter.id.message) else { continue };
            let recipient = recipients.get(usize::from(letter.id.index).wrapping_sub(1));
            let was_sent = recipient.is_some_and(|recipient| !sent.times(number, recipient).is_empty());
            assert!(
                !was_sent || letter.maybe_sent,
                "it was sent and does not say that it may be: {letter:?}"
            );
        }

        if !allowed.forgotten {
            let count = |state| ended.get(state).copied().unwrap_or(0);
            assert_eq!(stats.accepted, accepted, "messages accepted");
            let by_the_books = [stats.delivered, stats.dead, stats.expired];
            assert_eq!(by_the_books, ["delivered", "dead", "expired"].map(count), "delivered, dead, expired");
        }
        let shown = installation.smsctl_json(&["stats", "--json"]);
        assert_eq!(shown["accepted"], stats.accepted);
        assert_eq!(shown["deliveries"]["pending"], 0);
        for place in ["ready", "leased", "delayed"] {
            assert_eq!(shown[place], 0, "{shown}");
        }
        let findings = store.admin.audit().await.expect("the store answers");
        assert!(findings.is_empty(), "the audit found {findings:#?}");

        figures.recoveries = recoveries(&posts, &faults, &sent, &recipients);
        figures.latencies.sort_unstable();
        figures
    }
}

/// Waits until nothing is pending.
async fn at_rest(installation: &Installation) -> Stats {
    let store = installation.store();
    let end = Instant::now() + PATIENCE;
    loop {
        let stats = store.admin.stats().await;
        if let Ok(stats) = &stats {
            let in_lanes: u64 = stats.lanes.iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum();
            if stats.pending == 0 && in_lanes == 0 {
                assert_eq!(stats.conservation_error, 0);
                return stats.clone();
            }
        }
        assert!(Instant::now() < end, "not at rest in {PATIENCE:?}: {stats:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// When the provider accepted what, by number and recipient.
struct Sent(HashMap<(u32, String), Vec<Instant>>);

impl Sent {
    fn of(requests: &[Received]) -> Self {
        let mut sent: HashMap<_, Vec<Instant>> = HashMap::new();
        for request in requests.iter().filter(|request| request.accepted()) {
            let number = number_in(&request.text()).expect("every text has its number");
            sent.entry((number, request.destination.clone())).or_default().push(request.at.into_std());
        }
        Self(sent)
    }

    fn times(&self, number: u32, recipient: &str) -> &[Instant] {
        self.0.get(&(number, recipient.to_owned())).map_or(&[], Vec::as_slice)
    }
}

/// For each fault, the time until everything that was answered before it had arrived; nothing for a fault
/// that found everything delivered.
fn recoveries(
    posts: &BTreeMap<u32, Post>,
    faults: &[Instant],
    sent: &Sent,
    recipients: &[&str],
) -> Vec<Duration> {
    let mut open: Vec<(Instant, Instant)> = Vec::new();
    for (number, post) in posts {
        let Some(taken) = post.taken else { continue };
        let firsts = recipients.iter().filter_map(|recipient| sent.times(*number, recipient).first());
        open.extend(firsts.map(|first| (taken, *first)));
    }
    let recovery = |fault: &Instant| {
        let last =
            open.iter().filter(|(taken, first)| taken < fault && first > fault).map(|(_, first)| first);
        last.max().map(|last| *last - *fault)
    };
    let mut recoveries: Vec<Duration> = faults.iter().filter_map(recovery).collect();
    recoveries.sort_unstable();
    recoveries
}

/// The text of message `number`.
pub(crate) fn text(number: u32) -> String {
    format!("your code is {:06}", 100_000 + number)
}

fn number_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("your code is ")?;
    rest.get(..6)?.parse::<u32>().ok()?.checked_sub(100_000)
}

fn number_of(id: &MessageId) -> Option<u32> {
    u32::from_str_radix(id.as_str().strip_prefix("SM")?, 16).ok()
}
