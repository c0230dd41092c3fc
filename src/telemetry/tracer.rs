//! How a span is made.

use std::borrow::Cow;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::span::{Attribute, Kind, Span};
use crate::clock::Clock;
use crate::trace::{SpanId, TraceContext, TraceId};

/// Makes spans, or only carries contexts on where there is no collector. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Option<Arc<Recorder>>);

/// What recording takes.
pub(super) struct Recorder {
    pub(super) spans: mpsc::Sender<Span>,
    pub(super) dropped: IntCounter,
    pub(super) clock: Clock,
    pub(super) sample_ratio: f64,
    /// What the queue is, in the words of OpenTelemetry's `messaging.system`.
    pub(super) system: &'static str,
}

impl Tracer {
    /// One that records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(recorder: Recorder) -> Self {
        Self(Some(Arc::new(recorder)))
    }

    pub(super) fn system(&self) -> &'static str {
        self.0.as_ref().map_or("", |recorder| recorder.system)
    }

    /// Begins a trace. Whether it is recorded is drawn here, for all that follows from it.
    pub(super) fn begin(&self, began: Instant, kind: Kind, name: impl FnOnce() -> String) -> ActiveSpan {
        let sampled = self.0.as_ref().is_some_and(|recorder| fastrand::f64() < recorder.sample_ratio);
        let chance = NonZeroU128::new(fastrand::u128(1..)).unwrap_or(NonZeroU128::MIN);
        let context = TraceContext { trace_id: TraceId::new(chance), span_id: new_span(), sampled };
        self.span(context, None, began, kind, name)
    }

    /// Goes on where `parent` is. Of a trace that is not recorded nothing is, and what follows from this span
    /// follows from its parent.
    pub(super) fn follow(
        &self,
        parent: TraceContext,
        began: Instant,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> ActiveSpan {
        if self.0.is_none() || !parent.sampled {
            return ActiveSpan { context: Some(parent), recording: None };
        }
        let context = TraceContext { span_id: new_span(), ..parent };
        self.span(context, Some(parent.span_id), began, kind, name)
    }

    fn span(
        &self,
        context: TraceContext,
        parent: Option<SpanId>,
        began: Instant,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> ActiveSpan {
        let recording = self.0.as_ref().filter(|_| context.sampled).map(|recorder| {
            let elapsed = nanos(began.elapsed().as_nanos());
            let now = u64::try_from(recorder.clock.now().as_millis()).unwrap_or(0).saturating_mul(1_000_000);
            let start_nanos = now.saturating_sub(elapsed);
            let span = Span {
                context,
                parent,
                link: None,
                kind,
                name: Cow::Owned(name()),
                start_nanos,
                end_nanos: start_nanos,
                attributes: Vec::new(),
                failed: false,
            };
            Box::new(Recording { span, began, recorder: Arc::clone(recorder) })
        });
        ActiveSpan { context: Some(context), recording }
    }
}

fn new_span() -> SpanId {
    SpanId::new(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
}

fn nanos(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A span that has not ended: it ends when this is dropped, whatever the reason.
pub struct ActiveSpan {
    context: Option<TraceContext>,
    recording: Option<Box<Recording>>,
}

struct Recording {
    span: Span,
    began: Instant,
    recorder: Arc<Recorder>,
}

impl ActiveSpan {
    /// One of no trace.
    pub(super) fn none() -> Self {
        Self { context: None, recording: None }
    }

    /// Where what follows from it belongs: behind it, if it is recorded.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// The trace, as a field of log lines.
    pub fn trace_id(&self) -> Option<tracing::field::DisplayValue<TraceId>> {
        self.context.map(|context| tracing::field::display(context.trace_id))
    }

    /// Notes what is known of it, in place of what was known before.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        let Some(recording) = &mut self.recording else { return };
        let (attributes, value) = (&mut recording.span.attributes, value.into());
        match attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => attributes.push((name, value)),
        }
    }

    /// Notes a text that is made only where it is recorded.
    pub(super) fn set_with(&mut self, name: &'static str, text: impl FnOnce() -> String) {
        if self.recording.is_some() {
            self.set(name, text());
        }
    }

    pub(super) fn link(&mut self, created: TraceContext) {
        if let Some(recording) = &mut self.recording {
            recording.span.link = Some(created);
        }
    }

    pub(super) fn mark_failed(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.span.failed = true;
        }
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        let Some(recording) = self.recording.take() else { return };
        let Recording { mut span, began, recorder } = *recording;
        span.end_nanos = span.start_nanos.saturating_add(nanos(began.elapsed().as_nanos()));
        // Never waits: whoever did the work has more of it to do.
        if recorder.spans.try_send(span).is_err() {
            recorder.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn recording(room: usize, sample_ratio: f64) -> (Tracer, mpsc::Receiver<Span>, IntCounter) {
        let (spans, made) = mpsc::channel(room);
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        let recorder = Recorder { spans, dropped: dropped.clone(), clock, sample_ratio, system: "redis" };
        (Tracer::new(recorder), made, dropped)
    }

    fn begin(tracer: &Tracer) -> ActiveSpan {
        tracer.begin(Instant::now(), Kind::Server, || "GET /".to_owned())
    }

    fn follow(tracer: &Tracer, parent: TraceContext) -> ActiveSpan {
        tracer.follow(parent, Instant::now(), Kind::Consumer, || "deliver sms".to_owned())
    }

    #[test]
    fn a_span_that_finds_no_room_is_dropped_and_counted() {
        let (tracer, mut made, dropped) = recording(1, 1.0);
        for _ in 0..3 {
            begin(&tracer);
        }
        assert_eq!(dropped.get(), 2);
        assert_eq!(made.try_recv().unwrap().name, "GET /");
        drop(made);
        begin(&tracer);
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn what_follows_from_a_span_has_it_as_its_parent() {
        let (tracer, mut made, _) = recording(9, 1.0);
        let first = begin(&tracer);
        let context = first.context().unwrap();
        let mut second = follow(&tracer, context);
        second.set("error.type", "timeout");
        second.set("error.type", "expired");
        let after = second.context().unwrap();
        drop((second, first));
        let (second, first) = (made.try_recv().unwrap(), made.try_recv().unwrap());
        assert_eq!((first.parent, second.parent), (None, Some(context.span_id)));
        assert_eq!((first.context, second.context), (context, after));
        assert_eq!(second.attributes, [("error.type", Attribute::from("expired"))]);
        assert!(second.end_nanos >= second.start_nanos && second.end_nanos >= 1_000_000_000);
    }

    #[test]
    fn nothing_is_recorded_of_a_trace_that_is_not() {
        let (tracer, mut made, _) = recording(9, 0.0);
        let context = begin(&tracer).context().unwrap();
        assert!(!context.sampled);
        for tracer in [tracer, Tracer::off()] {
            // What follows goes on from where it was, as if this program were not there.
            assert_eq!(follow(&tracer, context).context(), Some(context));
        }
        let sampled = TraceContext { sampled: true, ..context };
        assert_eq!(follow(&Tracer::off(), sampled).context(), Some(sampled));
        assert!(made.try_recv().is_err());
    }
}
