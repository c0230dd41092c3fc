//! The operator's side of the port.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};

use super::audit;
use super::books::Books;
use super::letters;
use super::piece::{Place, read_history, text};
use super::reader::Snapshot;
use super::repair;
use super::store::EmbeddedQueue;
use crate::clock::Timestamp;
use crate::delivery::{DeadCause, DeliveryId, DeliveryState};
use crate::message::MessageId;
use crate::queue::contract::{
    DeadFilter, DeadLetter, DeadLetterText, DeliveryStatus, LaneDepth, MessageStatus, QueueAdmin, QueueError,
    Requeued, Stats,
};

#[async_trait]
impl QueueAdmin for EmbeddedQueue {
    async fn stats(&self) -> Result<Stats, QueueError> {
        self.reader.ask(stats).await
    }

    async fn status(&self, id: &MessageId) -> Result<Option<MessageStatus>, QueueError> {
        let id = id.clone();
        self.reader.ask(move |snapshot| status(snapshot, id)).await
    }

    async fn dead_letters(&self, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let filter = filter.clone();
        self.reader.ask(move |snapshot| dead_letters(snapshot, &filter, limit)).await
    }

    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError> {
        let id = id.clone();
        self.reader.ask(move |snapshot| dead_letter(snapshot, &id)).await
    }

    async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError> {
        let ids = ids.to_vec();
        self.writer.ask_to_fill(move |step| letters::requeue(step, &ids, deadline)).await
    }

    async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError> {
        let ids = ids.to_vec();
        self.writer.ask(move |step| letters::purge(step, &ids)).await
    }

    async fn audit(&self) -> Result<Vec<String>, QueueError> {
        self.reader.ask(audit::audit).await
    }

    async fn repair(&self) -> Result<Vec<String>, QueueError> {
        let mut done = Vec::new();
        for step in repair::STEPS {
            done.extend(self.writer.ask(step).await?);
        }
        Ok(done)
    }
}

impl Snapshot<'_> {
    fn count(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<u64> {
        let count: i64 = self.connection.prepare_cached(sql)?.query_row(parameters, |row| row.get(0))?;
        Ok(count.max(0).unsigned_abs())
    }

    /// Letters that died later than this can still be shown.
    fn too_old(&self) -> Timestamp {
        self.now.minus(self.settings.retention)
    }
}

fn stats(snapshot: &Snapshot<'_>) -> rusqlite::Result<Stats> {
    let books = Books::load(snapshot.connection)?;
    let lanes = snapshot
        .connection
        .prepare_cached("SELECT name FROM lane ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .map(|name| lane_depth(snapshot, name?))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut dead_letters = Vec::with_capacity(DeadCause::ALL.len());
    for cause in DeadCause::ALL {
        let kept = snapshot.count(
            "SELECT COUNT(*) FROM work WHERE cause = ?1 AND died_at IS NOT NULL AND died_at > ?2",
            params![cause.as_str(), snapshot.too_old().as_millis()],
        )?;
        dead_letters.push((cause, kept));
    }
    let found: u64 = lanes.iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum();
    let counted = |value: i64| value.max(0).unsigned_abs();
    Ok(Stats {
        accepted: counted(books.accepted),
        duplicates: counted(books.duplicates),
        delivered: counted(books.delivered),
        dead: counted(books.dead),
        expired: counted(books.expired),
        pending: books.pending(),
        lanes,
        dead_letters,
        conservation_error: books.pending() - i64::try_from(found).unwrap_or(i64::MAX),
    })
}

fn lane_depth(snapshot: &Snapshot<'_>, lane: String) -> rusqlite::Result<LaneDepth> {
    let ready = "SELECT COUNT(*) FROM work WHERE place = 'ready' AND lane = ?1";
    let leased = "SELECT COUNT(*) FROM work WHERE place = 'leased' AND lane = ?1";
    let delayed = "SELECT COUNT(*) FROM work WHERE place = 'delayed' AND lane = ?1";
    let parked = "SELECT COUNT(*) FROM work WHERE place = 'parked' AND lane = ?1";
    let paused = "SELECT COUNT(*) FROM gate WHERE lane = ?1 AND held_until IS NOT NULL AND held_until > ?2";
    let oldest = "SELECT ready_at FROM work WHERE place = 'ready' AND lane = ?1 ORDER BY turn LIMIT 1";
    let oldest: Option<Option<i64>> =
        snapshot.connection.prepare_cached(oldest)?.query_row(params![lane], |row| row.get(0)).optional()?;
    let age = oldest.flatten().map(|since| snapshot.now.since(Timestamp::from_millis(since)));
    Ok(LaneDepth {
        ready: snapshot.count(ready, params![lane])?,
        leased: snapshot.count(leased, params![lane])?,
        delayed: snapshot.count(delayed, params![lane])? + snapshot.count(parked, params![lane])?,
        oldest_ready_age_s: age.unwrap_or_default().as_secs_f64(),
        paused: snapshot.count(paused, params![lane, snapshot.now.as_millis()])?,
        lane,
    })
}

fn state_of(place: Place) -> DeliveryState {
    match place {
        Place::Delivered => DeliveryState::Delivered,
        Place::Dead => DeliveryState::Dead,
        Place::Expired => DeliveryState::Expired,
        Place::Ready | Place::Leased | Place::Delayed | Place::Parked | Place::Expanded => {
            DeliveryState::Pending
        }
    }
}

fn status(snapshot: &Snapshot<'_>, id: MessageId) -> rusqlite::Result<Option<MessageStatus>> {
    let mut statement = snapshot.connection.prepare_cached(
        "SELECT w.idx, w.lane, w.label, w.place, w.attempts, w.deadline \
         FROM message m JOIN work w ON w.message = m.seq \
         WHERE m.id = ?1 AND (m.expires_at IS NULL OR m.expires_at > ?2) ORDER BY w.idx",
    )?;
    let mut rows = statement.query(params![id.as_str(), snapshot.now.as_millis()])?;
    let mut status = None;
    while let Some(row) = rows.next()? {
        let index: i64 = row.get(0)?;
        let place = Place::read(&text(row, 3)?.unwrap_or_default());
        let deadline = Timestamp::from_millis(row.get(5)?);
        let status = status.get_or_insert_with(|| MessageStatus {
            id: id.clone(),
            expanded: false,
            deadline,
            deliveries: Vec::new(),
        });
        let state = state_of(place);
        if index == 0 && state == DeliveryState::Pending {
            status.expanded = place == Place::Expanded;
            continue;
        }
        // The routing's deadline says nothing about the deliveries it became.
        status.deadline = if status.deliveries.is_empty() { deadline } else { status.deadline.max(deadline) };
        let failed: u32 = row.get(4)?;
        status.deliveries.push(DeliveryStatus {
            channel: text(row, 1)?.unwrap_or_default(),
            destination: text(row, 2)?,
            state,
            attempts: failed.saturating_add(u32::from(state == DeliveryState::Delivered)),
        });
    }
    Ok(status)
}

/// The columns of a [`DeadLetter`].
const LETTER_COLUMNS: &str = "m.id, w.idx, w.lane, w.label, m.subscriber, w.cause, w.attempts, w.maybe_sent, \
     m.accepted_at, w.died_at, w.history, m.payload";

/// Reads a letter, `None` when its row cannot be shown (which the audit reports).
fn letter(row: &Row<'_>) -> rusqlite::Result<Option<DeadLetter>> {
    let message = text(row, 0)?.and_then(|id| MessageId::parse(&id).ok());
    let cause = text(row, 5)?.and_then(|word| DeadCause::parse(&word));
    let (Some(message), Some(cause)) = (message, cause) else { return Ok(None) };
    Ok(Some(DeadLetter {
        id: DeliveryId { message, index: row.get(1)? },
        channel: text(row, 2)?.unwrap_or_default(),
        destination: text(row, 3)?,
        subscriber: text(row, 4)?.unwrap_or_default(),
        cause,
        attempts: row.get(6)?,
        maybe_sent: row.get(7)?,
        accepted_at: Timestamp::from_millis(row.get(8)?),
        died_at: Timestamp::from_millis(row.get(9)?),
        history: read_history(text(row, 10)?.as_deref()),
    }))
}

fn dead_letters(
    snapshot: &Snapshot<'_>,
    filter: &DeadFilter,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    // Newest first along the index by time, one row at a time, until there are enough.
    let mut statement = snapshot.connection.prepare_cached(&format!(
        "SELECT {LETTER_COLUMNS} FROM work w JOIN message m ON m.seq = w.message \
         WHERE w.died_at IS NOT NULL AND w.died_at > ?1 AND w.died_at >= ?2 \
         ORDER BY w.died_at DESC, w.message DESC, w.idx DESC"
    ))?;
    let since = filter.since.map_or(i64::MIN, |since| snapshot.now.minus(since).as_millis());
    let mut rows = statement.query(params![snapshot.too_old().as_millis(), since])?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        found.extend(letter(row)?.filter(|letter| filter.admits(letter)));
    }
    Ok(found)
}

fn dead_letter(snapshot: &Snapshot<'_>, id: &DeliveryId) -> rusqlite::Result<Option<DeadLetterText>> {
    let mut statement = snapshot.connection.prepare_cached(&format!(
        "SELECT {LETTER_COLUMNS} FROM message m JOIN work w ON w.message = m.seq \
         WHERE m.id = ?1 AND w.idx = ?2 AND w.died_at IS NOT NULL AND w.died_at > ?3"
    ))?;
    let key = params![id.message.as_str(), id.index, snapshot.too_old().as_millis()];
    let found = statement.query_row(key, |row| Ok((letter(row)?, row.get(11)?))).optional()?;
    Ok(found.and_then(|(letter, payload)| Some(DeadLetterText { letter: letter?, payload })))
}
