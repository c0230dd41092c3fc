//! The proof that something came from who it says it came from.

use crate::message::InboundMessage;
use crate::trace::TraceContext;

/// A value whose origin was proved. Only the modules of [`crate::source`] can make one, and the
/// ingress stores nothing else, so forgetting the check does not compile:
///
/// ```compile_fail,E0624
/// let unproved = sms_broadcaster::source::verified::Verified::new("trust me");
/// ```
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// For a source that has checked the origin of `value`.
    pub(in crate::source) fn new(value: T) -> Self {
        Self(value)
    }

    /// What was proved.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What was proved, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Verified<InboundMessage> {
    /// The message with the trace it is part of, which its door has no say in and nobody proves.
    pub fn in_trace(mut self, trace: TraceContext) -> Self {
        self.0.trace = Some(trace);
        self
    }
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not prove where it came from.
    BadSignature,
    /// It does, but it is not a message for us. The words never repeat what was sent.
    Malformed(&'static str),
}
