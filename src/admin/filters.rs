//! The words of the command line that choose letters and times.

use std::time::Duration;

use crate::delivery::{ChannelId, DeadCause};
use crate::document::parse_duration;
use crate::message::Malformed;
use crate::queue::contract::Lane;

/// Reads the name of a channel, or `in` for messages whose routing died.
pub fn parse_channel(text: &str) -> Result<String, Malformed> {
    if text == Lane::inbound().as_str() {
        return Ok(text.to_owned());
    }
    match ChannelId::parse(text) {
        Ok(channel) => Ok(channel.as_str().to_owned()),
        Err(_) => Err(Malformed("a channel is a name like sms or slack, or in for unrouted messages")),
    }
}

/// Reads the cause of a death.
pub fn parse_cause(text: &str) -> Result<DeadCause, Malformed> {
    DeadCause::parse(text)
        .ok_or(Malformed("a cause is permanent, exhausted, expired, poison, unroutable or undecryptable"))
}

/// Reads how long ago a letter may have died: `1h`.
pub fn parse_since(text: &str) -> Result<Duration, Malformed> {
    parse_duration(text)
}

/// Reads the time that requeued deliveries get: `5m`, not zero, which would expire them at once.
pub fn parse_deadline(text: &str) -> Result<Duration, Malformed> {
    let deadline = parse_duration(text)?;
    if deadline < Duration::from_millis(1) {
        return Err(Malformed("a deadline is at least 1ms from now"));
    }
    Ok(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_they_are_shown() {
        assert_eq!(parse_channel("sms").unwrap(), "sms");
        assert_eq!(parse_channel("in").unwrap(), "in");
        assert!(parse_channel("SMS").is_err());
        assert!(parse_channel("").is_err());
        for cause in DeadCause::ALL {
            assert_eq!(parse_cause(cause.as_str()).unwrap(), cause);
            let told = parse_cause("dead").unwrap_err().to_string();
            assert!(told.contains(cause.as_str()), "{told}");
        }
        assert_eq!(parse_since("1h 30m").unwrap(), Duration::from_secs(5_400));
        assert!(parse_since("1").is_err());
        assert_eq!(parse_deadline("5m").unwrap(), Duration::from_secs(300));
        assert!(parse_deadline("0s").is_err());
        assert!(parse_deadline("900us").is_err());
    }
}
