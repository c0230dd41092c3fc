//! The proof that a message came from who it says it came from.

use crate::message::InboundMessage;

/// A message whose origin was proved. Only the modules of [`crate::source`] can make one, and the
/// ingress stores nothing else: forgetting the check does not compile.
#[derive(Debug)]
pub struct Verified(InboundMessage);

impl Verified {
    /// For a source that has checked the origin of `message`.
    pub(in crate::source) fn new(message: InboundMessage) -> Self {
        Self(message)
    }

    /// The message.
    pub fn message(&self) -> &InboundMessage {
        &self.0
    }
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not prove where it came from.
    Forged,
    /// It does, but it is not a message for us. The words never repeat what was sent.
    Malformed(&'static str),
}
