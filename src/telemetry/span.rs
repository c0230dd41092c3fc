//! A finished span.

use std::borrow::Cow;

use crate::trace::{SpanId, TraceContext};

/// What part a span plays; the numbers are OTLP's (`SpanKind` of `opentelemetry/proto/trace/v1/trace.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server = 2,
    /// Hands a message to the queue.
    Producer = 4,
    /// Works on a message of the queue.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A word of ours, or an identity.
    Text(Cow<'static, str>),
    /// A count or code.
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(word: &'static str) -> Self {
        Self::Text(Cow::Borrowed(word))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for Attribute {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Something that was done, when, for which trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its place.
    pub context: TraceContext,
    /// The span that caused it; `None` for the first of a trace.
    pub parent: Option<SpanId>,
    /// Where the message was created that it works on.
    pub link: Option<TraceContext>,
    /// Its part.
    pub kind: Kind,
    /// What was done; few different ones.
    pub name: Cow<'static, str>,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_nanos: u64,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub end_nanos: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Whether it went wrong.
    pub failed: bool,
}
