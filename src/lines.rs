//! Log lines as text where nobody colours them.
//!
//! They are to the byte what `tracing_subscriber` writes without colours. Its own format prepares some for every name and sign
//! all the same, and a worker writes a line for every attempt.

use std::fmt::{self, Debug};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::VisitOutput as _;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as time, level, target, message and fields. Spans are left out: there are none.
pub struct PlainLines;

impl<S, N> FormatEvent<S, N> for PlainLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        #[expect(clippy::disallowed_methods, reason = "a line says when it was written")]
        let now = SystemTime::now();
        write!(writer, "{} ", humantime::format_rfc3339_micros(now))?;
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "ERROR ",
            Level::WARN => " WARN ",
            Level::INFO => " INFO ",
            Level::DEBUG => "DEBUG ",
            Level::TRACE => "TRACE ",
        })?;
        writer.write_str(event.metadata().target())?;
        writer.write_char(':')?;
        let mut fields = Fields { writer: writer.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writer.write_char('\n')
    }
}

/// Writes fields one after another, a blank before each.
struct Fields<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn named(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let name = field.name();
        let writer = &mut self.writer;
        let written = writer
            .write_char(' ')
            .and_then(|()| writer.write_str(name.strip_prefix("r#").unwrap_or(name)))
            .and_then(|()| writer.write_char('='))
            .and_then(|()| write(writer));
        self.result = self.result.and(written);
    }

    /// What may hold anything is the library's business: it keeps a terminal from obeying it.
    fn guarded(&mut self, write: impl FnOnce(&mut DefaultVisitor<'_>)) {
        let written = self.writer.write_char(' ').and_then(|()| {
            let mut visitor = DefaultVisitor::new(self.writer.by_ref(), true);
            write(&mut visitor);
            visitor.finish()
        });
        self.result = self.result.and(written);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.guarded(|visitor| visitor.record_debug(field, value)),
            _ => self.named(field, |writer| write!(writer, "{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        match field.name() {
            "message" => self.guarded(|visitor| visitor.record_str(field, value)),
            // Nothing to escape, as nearly always.
            _ if value.bytes().all(is_plain) => self.named(field, |writer| {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            }),
            _ => self.named(field, |writer| write!(writer, "{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.guarded(|visitor| visitor.record_error(field, value));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of all kinds of values, without the times.
    fn lines(subscriber: impl FnOnce(Sink) -> Box<dyn Subscriber + Send + Sync>) -> Vec<String> {
        let sink = Sink::default();
        tracing::subscriber::with_default(subscriber(sink.clone()), || {
            let none: Option<u16> = None;
            let error = io::Error::other(io::Error::other("inside\u{1b}[31m"));
            tracing::info!(id = %"a b", word = "plain", count = 3_u32, none, some = Some("x"), "attempt");
            tracing::warn!(word = "quoted \" \\ é \n \u{1b}[31m", shown = ?"x\ty", "a {} b", "c\u{1b}[31m");
            tracing::error!(
                error = &error as &dyn std::error::Error,
                big = u64::MAX,
                less = -1_i64,
                "failed"
            );
            tracing::debug!(r#type = true, half = 0.5, message = "named");
            tracing::trace!(only = "a field");
        });
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        written.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_to_the_byte_what_the_library_writes() {
        let lines_by_us = lines(|sink| {
            let layer = tracing_subscriber::fmt::layer().event_format(PlainLines).with_ansi(false);
            Box::new(tracing_subscriber::registry().with(layer.with_writer(move || sink.clone())))
        });
        let lines_by_library = lines(|sink| {
            let layer = tracing_subscriber::fmt::layer().with_ansi(false);
            Box::new(tracing_subscriber::registry().with(layer.with_writer(move || sink.clone())))
        });
        assert_eq!(lines_by_us.len(), 5, "{lines_by_us:#?}");
        assert_eq!(lines_by_us, lines_by_library);
    }

    #[test]
    fn a_line_begins_with_the_time_to_the_microsecond() {
        let sink = Sink::default();
        let written = sink.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(PlainLines).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || sink.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::info!("said"));
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = line.split_at("2026-11-24T04:06:39.123456Z".len());
        assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
        assert_eq!(rest, "  INFO sms_broadcaster::lines::tests: said\n");
    }
}
