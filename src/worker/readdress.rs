//! Where a delivery goes whose stored recipient cannot be read: its message is routed again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;

use crate::code::Recogniser;
use crate::delivery::{ChannelId, DestinationKeyer, Recipient};
use crate::message::InboundMessage;
use crate::queue::contract::Work;
use crate::subscribers::Subscribers;

/// Finds recipients anew.
pub(super) struct Readdress {
    subscribers: watch::Receiver<Arc<Subscribers>>,
    recogniser: Arc<Recogniser>,
    keyer: DestinationKeyer,
}

impl Readdress {
    pub(super) fn new(
        subscribers: watch::Receiver<Arc<Subscribers>>,
        recogniser: Arc<Recogniser>,
        keyer: DestinationKeyer,
    ) -> Self {
        Self { subscribers, recogniser, keyer }
    }

    /// The recipient of `work` on `channel` by today's route of its message: the one whose destination has the
    /// stored name; else, for names change with their key, the one in its place. `None` when there is none.
    pub(super) fn recipient(
        &self,
        message: &InboundMessage,
        work: &Work,
        channel: &ChannelId,
    ) -> Option<Recipient> {
        let subscribers = Arc::clone(&self.subscribers.borrow());
        let routed = catch_unwind(AssertUnwindSafe(|| {
            let found = self.recogniser.of(message);
            subscribers.route(message, &found).recipients.to_vec()
        }));
        let recipients = routed.ok()?;
        let place = usize::from(work.lease.key().work.index).checked_sub(1)?;
        let named = |recipient: &&Recipient| work.destination.as_ref() == Some(&self.keyer.key(recipient));
        let found = recipients.iter().find(named).or_else(|| recipients.get(place));
        found.filter(|recipient| recipient.channel() == *channel).cloned()
    }
}
