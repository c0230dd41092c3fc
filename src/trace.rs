//! Which distributed trace a message belongs to: the `traceparent` of W3C Trace Context.
//!
//! Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// Identity of a trace. Displays as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// Identity of one span of a trace. Displays as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// A trace of its own; `chance` is drawn anew for each.
    pub fn new(chance: NonZeroU128) -> Self {
        Self(chance)
    }
}

impl SpanId {
    /// A span of its own; `chance` is drawn anew for each.
    pub fn new(chance: NonZeroU64) -> Self {
        Self(chance)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a trace, for what follows from it. Displays as a `traceparent` of version 00:
/// `00-{trace id}-{span id}-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in it that what follows is caused by.
    pub span_id: SpanId,
    /// Whether the trace is recorded; who begins a trace decides it for all.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` when it is none. Of a later version the part that version 00 has is taken.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.split('-');
        let mut field = |digits: usize| {
            // Upper case is not allowed, still less a sign, which the parser of numbers would take.
            let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            fields.next().filter(|text| text.len() == digits && text.bytes().all(is_digit))
        };
        let version = field(2)?;
        let trace_id = u128::from_str_radix(field(32)?, 16).ok().and_then(NonZeroU128::new)?;
        let span_id = u64::from_str_radix(field(16)?, 16).ok().and_then(NonZeroU64::new)?;
        let flags = u8::from_str_radix(field(2)?, 16).ok()?;
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        Some(Self { trace_id: TraceId(trace_id), span_id: SpanId(span_id), sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id.to_string(), "b7ad6b7169203331");
        assert!(context.sampled);
        assert_eq!(context.to_string(), EXAMPLE);

        let flags = |flags: &str| TraceContext::parse(&EXAMPLE.replace("-01", flags)).unwrap().sampled;
        assert!(!flags("-00") && !flags("-02") && flags("-03") && flags("-ff"));
        // A later version may have more, after another dash.
        for later in [EXAMPLE.replacen("00", "01", 1), EXAMPLE.replacen("00", "fe", 1) + "-what-comes"] {
            let context = TraceContext::parse(&later).unwrap();
            assert_eq!(context.to_string(), EXAMPLE);
        }
    }

    #[test]
    fn anything_else_is_no_traceparent() {
        for bad in [
            String::new(),
            "00".to_owned(),
            EXAMPLE[..54].to_owned(),
            EXAMPLE.to_uppercase(),
            format!("{EXAMPLE}-"),
            format!("{EXAMPLE}-more"),
            format!("{EXAMPLE}1"),
            format!(" {EXAMPLE}"),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replacen("00", "0g", 1),
            EXAMPLE.replacen("0af7", "+af7", 1),
            EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16)),
            format!("{EXAMPLE},{EXAMPLE}"),
            "00-é-é-é".to_owned(),
        ] {
            assert!(TraceContext::parse(&bad).is_none(), "{bad:?}");
        }
    }
}
