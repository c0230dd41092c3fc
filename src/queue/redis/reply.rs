//! From and to the words the scripts speak.

use std::time::Duration;

use redis::{FromRedisValue, Value, from_redis_value};

use super::fault::not_understood;
use crate::clock::Timestamp;
use crate::delivery::{DeadCause, DeliveryId, DestinationKey};
use crate::message::MessageId;
use crate::queue::contract::{Buried, Lane, Lease, LeaseKey, QueueError, Work};

/// A hundred years: what is longer is as good as for ever, and stays exact in a script's numbers.
const LONGEST_MS: i64 = 100 * 365 * 24 * 3_600_000;

/// The end of the year 9999.
const LATEST_MS: i64 = 253_402_300_799_999;

/// A length of time as scripts take it.
pub(super) fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(LONGEST_MS).min(LONGEST_MS)
}

/// A moment as scripts take it.
pub(super) fn moment(at: Timestamp) -> i64 {
    at.as_millis().clamp(0, LATEST_MS)
}

/// Reads an answer that must have a certain form.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, QueueError> {
    from_redis_value(value).map_err(|_| not_understood())
}

/// Reads an answer that must be a list.
pub(super) fn list(value: Value) -> Result<Vec<Value>, QueueError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(not_understood()),
    }
}

/// Reads an answer that must be a list of a certain length.
pub(super) fn fields<const N: usize>(value: Value) -> Result<[Value; N], QueueError> {
    <[Value; N]>::try_from(list(value)?).map_err(|_| not_understood())
}

/// A text that somebody else may have written.
pub(super) fn text(value: Value) -> Result<String, QueueError> {
    Ok(String::from_utf8_lossy(&read::<Vec<u8>>(value)?).into_owned())
}

/// A text, or none.
pub(super) fn optional_text(value: Value) -> Result<Option<String>, QueueError> {
    if value == Value::Nil { Ok(None) } else { text(value).map(Some) }
}

pub(super) fn timestamp(value: Value) -> Result<Timestamp, QueueError> {
    read(value).map(Timestamp::from_millis)
}

fn message_id(value: Value) -> Result<MessageId, QueueError> {
    MessageId::parse(&read::<String>(value)?).map_err(|_| not_understood())
}

/// Reads work handed out in `lane`. One piece that cannot be read is left to its lease, which runs
/// out; the others do not notice.
pub(super) fn work(value: Value, lane: &Lane) -> Result<Vec<Work>, QueueError> {
    let keep = |item| match one_work(item, lane) {
        Ok(work) => Some(work),
        Err(_) => {
            tracing::error!(lane = lane.as_str(), "a piece of work cannot be read as it was handed out");
            None
        }
    };
    Ok(list(value)?.into_iter().filter_map(keep).collect())
}

fn one_work(value: Value, lane: &Lane) -> Result<Work, QueueError> {
    let [
        entry,
        id,
        index,
        payload,
        subscriber,
        recipient,
        destination,
        attempts,
        pauses,
        deadline,
        accepted_at,
        handed_out,
    ] = fields(value)?;
    let work = DeliveryId { message: message_id(id)?, index: read(index)? };
    let destination = text(destination)?;
    Ok(Work {
        lease: Lease::new(LeaseKey { lane: lane.clone(), work, entry: read(entry)? }),
        payload: read(payload)?,
        subscriber: text(subscriber)?,
        recipient: read(recipient)?,
        destination: (!destination.is_empty()).then(|| DestinationKey::from_stored(&destination)),
        attempts: read(attempts)?,
        pauses: read(pauses)?,
        deadline: timestamp(deadline)?,
        accepted_at: timestamp(accepted_at)?,
        handed_out: read(handed_out)?,
    })
}

/// Reads what ended inside a call. It has ended whether it can be told or not.
pub(super) fn buried(value: Value) -> Result<Vec<Buried>, QueueError> {
    Ok(list(value)?.into_iter().filter_map(|one| one_buried(one).ok()).collect())
}

fn one_buried(value: Value) -> Result<Buried, QueueError> {
    let [id, index, lane, subscriber, cause, attempts] = fields(value)?;
    Ok(Buried {
        delivery: DeliveryId { message: message_id(id)?, index: read(index)? },
        lane: Lane::from_stored(&text(lane)?),
        subscriber: text(subscriber)?,
        cause: DeadCause::parse(&text(cause)?).ok_or_else(not_understood)?,
        attempts: read(attempts)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn item(id: &str) -> Value {
        let numbers = [0, 0, 9_000, 1_000, 1].map(Value::Int);
        let mut values = vec![bulk("1-0"), bulk(id), Value::Int(1), bulk("text"), bulk("team"), bulk("to")];
        values.push(bulk("d1"));
        values.extend(numbers);
        Value::Array(values)
    }

    #[test]
    fn a_piece_that_cannot_be_read_takes_no_other_with_it() {
        let lane = Lane::from_stored("sms");
        let items = Value::Array(vec![item("a:1"), item("nothing"), Value::Nil, item("a:2")]);
        let read: Vec<_> =
            work(items, &lane).unwrap().iter().map(|w| w.lease.key().work.to_string()).collect();
        assert_eq!(read, ["a:1/1", "a:2/1"]);
    }

    #[test]
    fn the_longest_times_stay_within_what_a_script_counts_exactly() {
        assert!(millis(Duration::MAX) < 1 << 52);
        assert_eq!(moment(Timestamp::from_millis(i64::MAX)), LATEST_MS);
        assert_eq!(moment(Timestamp::from_millis(i64::MIN)), 0);
        assert_eq!(millis(Duration::from_millis(15)), 15);
    }
}
