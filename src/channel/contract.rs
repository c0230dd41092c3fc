//! The channel port: how one rendered text is handed to one recipient.
//!
//! A channel knows its provider's wire and nothing about budgets, queues or other channels. It says
//! what happened; it never retries, waits or logs texts, people or URLs.

use std::time::Duration;

use async_trait::async_trait;

use crate::delivery::{ChannelId, DeliveryId, Outcome, Recipient};
use crate::message::Body;

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Which delivery; the same over all its attempts.
    pub delivery: DeliveryId,
    /// To whom.
    pub recipient: Recipient,
    /// What: rendered and escaped for this channel, not yet cut to its limits.
    pub text: Body,
    /// Time left to the deadline, more than zero.
    pub time_left: Duration,
}

/// One way out.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name.
    fn id(&self) -> ChannelId;

    /// Makes one attempt and says what happened. Bounded by the channel's own `timeout`, connection
    /// and answer included. Dropping it abandons the attempt.
    async fn deliver(&self, dispatch: Dispatch) -> Outcome;
}
