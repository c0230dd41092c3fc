//! The answers for people: aligned, with readable numbers and times, coloured on a terminal.

use super::digest::{MessageState, Totals};
use super::doctor::Examination;
use super::letters::{Purged, Returned};
use super::preview::RoutePreview;
use super::readable::{count, counted, harmless, seconds, span};
use super::style::{Paint, Style};
use super::table::{Align, Cell, Table};
use crate::clock::Timestamp;
use crate::code::{Code, CodeEvidence, Recognised, ServiceEvidence};
use crate::delivery::DeliveryState;
use crate::document::duration_text;
use crate::message::MessageId;
use crate::queue::contract::{DeadLetter, DeadLetterText, LaneDepth, MessageStatus, Stats};
use crate::subscribers::Match;

/// `stats`: the counts of the store, and of every lane that ever had work.
pub fn stats(stats: &Stats, style: Style) -> String {
    let totals = Totals::of(stats);
    let number = |number: u64, name, paint| labelled(style, i128::from(number), name, paint);
    let mut queue = vec![
        number(totals.ready, "ready", Paint::Plain),
        number(totals.leased, "leased", Paint::Plain),
        number(totals.delayed, "delayed", Paint::Plain),
    ];
    if totals.ready > 0 {
        queue.push(format!("oldest ready {}", span(seconds(totals.oldest_ready_age_s))));
    }
    let mut letters = vec![number(totals.dead_letters, "kept", Paint::Warning)];
    letters.extend(
        { stats.dead_letters.iter().filter(|(_, kept)| *kept > 0) }
            .map(|(cause, kept)| number(*kept, cause.as_str(), Paint::Plain)),
    );
    let messages = [
        number(totals.accepted, "accepted", Paint::Plain),
        number(totals.duplicates, "duplicate", Paint::Plain),
    ];
    let deliveries = [
        number(totals.deliveries.delivered, "delivered", Paint::Good),
        number(totals.deliveries.dead, "dead", Paint::Bad),
        number(totals.deliveries.expired, "expired", Paint::Bad),
        labelled(style, totals.deliveries.pending.into(), "pending", Paint::Plain),
    ];
    let mut page = facts(
        style,
        &[
            ("messages", messages.join("   ")),
            ("deliveries", deliveries.join("   ")),
            ("queue", queue.join("   ")),
            ("dead letters", letters.join("   ")),
        ],
    );
    if !stats.lanes.is_empty() {
        page.push('\n');
        page.push_str(&lanes(&stats.lanes, style));
    }
    if stats.conservation_error != 0 {
        let warning = format!(
            "The books do not add up: {} more pending than found in the queue. Something else changed the store.",
            count(stats.conservation_error)
        );
        page.push_str(&format!("\n{}\n", style.paint(Paint::Bad, &warning)));
    }
    page
}

fn lanes(lanes: &[LaneDepth], style: Style) -> String {
    let mut table = Table::new([
        ("channel", Align::Left),
        ("ready", Align::Right),
        ("leased", Align::Right),
        ("delayed", Align::Right),
        ("oldest", Align::Right),
        ("paused", Align::Right),
    ]);
    for lane in lanes {
        let number =
            |number: u64, paint| Cell::painted(count(number), if number == 0 { Paint::Faint } else { paint });
        let oldest = (lane.ready > 0).then(|| span(seconds(lane.oldest_ready_age_s)));
        table.row([
            Cell::new(&lane.lane),
            number(lane.ready, Paint::Plain),
            number(lane.leased, Paint::Plain),
            number(lane.delayed, Paint::Plain),
            Cell::from(oldest.as_deref()),
            number(lane.paused, Paint::Warning),
        ]);
    }
    table.lines(style)
}

/// `stats --watch` where there is no screen to redraw: one line a look.
pub fn stats_line(stats: &Stats, now: Timestamp) -> String {
    let totals = Totals::of(stats);
    let deliveries = totals.deliveries;
    let counts = [
        ("accepted", i128::from(totals.accepted)),
        ("duplicates", totals.duplicates.into()),
        ("delivered", deliveries.delivered.into()),
        ("dead", deliveries.dead.into()),
        ("expired", deliveries.expired.into()),
        ("pending", deliveries.pending.into()),
        ("ready", totals.ready.into()),
        ("leased", totals.leased.into()),
        ("delayed", totals.delayed.into()),
        ("dead_letters", totals.dead_letters.into()),
    ];
    let mut line = now.to_string();
    for (name, count) in counts {
        line.push_str(&format!(" {name}={count}"));
    }
    line + "\n"
}

/// `stats --watch` on a screen: the same page in place of the last. `first` clears what was there before.
pub fn stats_screen(counts: &Stats, first: bool, style: Style) -> String {
    // ECMA-48: home, erase the screen, erase to the end of the line, erase below.
    let clear = if first { "\u{1b}[H\u{1b}[2J" } else { "\u{1b}[H" };
    let page = stats(counts, style).replace('\n', "\u{1b}[K\n");
    format!("{clear}{page}\u{1b}[J")
}

/// `inspect`: what was recognised in a text.
pub fn recognised(found: &Recognised, style: Style) -> String {
    facts(style, &found_facts(found))
}

fn found_facts(found: &Recognised) -> [(&'static str, String); 5] {
    let or_none = |text: Option<&str>| text.map_or("-".to_owned(), |text| harmless(text, false).into_owned());
    let by =
        |evidence: Option<&'static str>| evidence.map_or(String::new(), |word| format!(" (by its {word})"));
    let code = or_none(found.code.as_ref().map(Code::expose));
    let service = or_none(found.service.as_deref());
    let sure = found.code.as_ref().map_or("-".to_owned(), |_| format!("{:.2}", found.confidence));
    [
        ("code", code + &by(found.code_evidence.map(CodeEvidence::in_words))),
        ("service", service + &by(found.service_evidence.map(ServiceEvidence::in_words))),
        ("domain", or_none(found.domain.as_deref())),
        ("expires in", found.expires_in.map_or("-".to_owned(), duration_text)),
        ("confidence", sure),
    ]
}

/// `dead list`: a letter a line, people masked. `limit` is how many were asked for.
pub fn letters(letters: &[DeadLetter], limit: usize, style: Style) -> String {
    if letters.is_empty() {
        return "No dead letters.\n".to_owned();
    }
    let mut table = Table::new([
        ("id", Align::Left),
        ("died", Align::Left),
        ("cause", Align::Left),
        ("channel", Align::Left),
        ("destination", Align::Left),
        ("subscriber", Align::Left),
        ("attempts", Align::Right),
        ("maybe sent", Align::Left),
        ("last error", Align::Left),
    ]);
    for letter in letters {
        let last_error = letter.history.last().map(|attempt| attempt.summary());
        table.row([
            Cell::new(letter.id.to_string()),
            Cell::new(letter.died_at.to_string()),
            Cell::painted(letter.cause.as_str(), Paint::Bad),
            Cell::new(&letter.channel),
            Cell::from(letter.destination.as_deref()),
            Cell::from(Some(letter.subscriber.as_str())),
            Cell::new(count(letter.attempts)),
            maybe_sent(letter),
            Cell::from(last_error.as_deref()),
        ]);
    }
    let mut page = table.lines(style);
    if letters.len() == limit {
        let note = format!("The newest {}; see more with --limit.", count(limit as u64));
        page.push_str(&format!("{}\n", style.paint(Paint::Faint, &note)));
    }
    page
}

fn maybe_sent(letter: &DeadLetter) -> Cell {
    if letter.maybe_sent { Cell::painted("yes", Paint::Warning) } else { Cell::new("no") }
}

/// `dead show`: one letter and its attempts, oldest first; with `reveal` also what it says, who sent it
/// and to which number of ours.
pub fn letter(found: &DeadLetterText, reveal: bool, style: Style) -> String {
    let letter = &found.letter;
    let or_none =
        |text: &str| if text.is_empty() { "-".to_owned() } else { harmless(text, false).into_owned() };
    let lived = span(letter.died_at.since(letter.accepted_at));
    let mut page = facts(
        style,
        &[
            ("letter", style.paint(Paint::Heading, &letter.id.to_string())),
            ("cause", style.paint(Paint::Bad, letter.cause.as_str())),
            ("channel", or_none(&letter.channel)),
            ("destination", or_none(letter.destination.as_deref().unwrap_or_default())),
            ("subscriber", or_none(&letter.subscriber)),
            ("attempts", count(letter.attempts)),
            (
                "maybe sent",
                if letter.maybe_sent { style.paint(Paint::Warning, "yes") } else { "no".to_owned() },
            ),
            ("accepted", letter.accepted_at.to_string()),
            ("died", format!("{} ({lived} later)", letter.died_at)),
        ],
    );
    if !letter.history.is_empty() {
        page.push('\n');
        page.push_str(&history(letter, style));
    }
    if reveal {
        page.push('\n');
        page.push_str(&revealed(found, style));
    }
    page
}

fn history(letter: &DeadLetter, style: Style) -> String {
    let mut table = Table::new([
        ("at", Align::Left),
        ("outcome", Align::Left),
        ("reason", Align::Left),
        ("status", Align::Right),
        ("code", Align::Left),
    ]);
    for attempt in &letter.history {
        let status = attempt.status.map(|status| status.to_string());
        table.row([
            Cell::new(attempt.at.to_string()),
            Cell::new(&attempt.outcome),
            Cell::new(attempt.reason.as_str()),
            Cell::from(status.as_deref()),
            Cell::from(attempt.code.as_deref()),
        ]);
    }
    table.lines(style)
}

fn revealed(found: &DeadLetterText, style: Style) -> String {
    match super::json::revealed(found) {
        Some(message) => {
            let people = [
                ("from", harmless(message.from.as_str(), false).into_owned()),
                ("to", harmless(message.to.as_str(), false).into_owned()),
            ];
            format!("{}{}", facts(style, &people), indented(message.body.expose()))
        }
        None if found.payload.is_none() => "Its text is gone.\n".to_owned(),
        None => "Its text cannot be read.\n".to_owned(),
    }
}

/// `requeue`; with `dry_run` it would have been so.
pub fn returned(returned: &Returned, dry_run: bool) -> String {
    let verb = if dry_run { "Would requeue" } else { "Requeued" };
    let skipped = match returned.skipped {
        0 => String::new(),
        skipped => format!(", skipped {} (the text is gone)", count(skipped)),
    };
    format!("{verb} {}{skipped}.\n", counted(returned.requeued, "dead letter"))
}

/// `dead purge`; with `dry_run` it would have been so.
pub fn purged(purged: &Purged, dry_run: bool) -> String {
    let verb = if dry_run { "Would purge" } else { "Purged" };
    format!("{verb} {}.\n", counted(purged.purged, "dead letter"))
}

/// `status`: where the deliveries of one message stand.
pub fn status(message: &MessageStatus, style: Style) -> String {
    let state = MessageState::of(message);
    let paint = if state == MessageState::Done { Paint::Good } else { Paint::Warning };
    let mut page = facts(
        style,
        &[
            ("message", style.paint(Paint::Heading, message.id.as_str())),
            ("state", style.paint(paint, state.as_str())),
            ("deadline", message.deadline.to_string()),
        ],
    );
    if message.deliveries.is_empty() {
        return page;
    }
    let mut table = Table::new([
        ("channel", Align::Left),
        ("destination", Align::Left),
        ("state", Align::Left),
        ("attempts", Align::Right),
    ]);
    for delivery in &message.deliveries {
        let paint = match delivery.state {
            DeliveryState::Delivered => Paint::Good,
            DeliveryState::Pending => Paint::Warning,
            DeliveryState::Dead | DeliveryState::Expired => Paint::Bad,
        };
        table.row([
            Cell::new(&delivery.channel),
            Cell::from(delivery.destination.as_deref()),
            Cell::painted(delivery.state.as_str(), paint),
            Cell::new(count(delivery.attempts)),
        ]);
    }
    page.push('\n');
    page.push_str(&table.lines(style));
    page
}

/// `route`: who would get a text, and how it would read.
pub fn route(preview: &RoutePreview, style: Style) -> String {
    let how = match preview.matched {
        Match::Subscriber if preview.by_service => " (by its service)",
        Match::Subscriber => "",
        Match::Fallback => " (fallback: no subscriber matches)",
        Match::Dropped => " (drops it)",
    };
    let name = style.paint(Paint::Heading, &harmless(&preview.subscriber, false));
    let mut known =
        vec![("subscriber", format!("{name}{how}")), ("deadline", duration_text(preview.deadline))];
    known.extend(found_facts(&preview.found));
    let mut page = facts(style, &known);
    for delivery in &preview.recipients {
        let channel = style.paint(Paint::Heading, delivery.channel.as_str());
        let destination = harmless(&delivery.destination, false);
        page.push_str(&format!("\n{channel}  {destination}\n{}", indented(delivery.text.expose())));
    }
    page
}

/// `check`: what was looked at and is as it should be.
pub fn checked(parts: &[(&str, String)], style: Style) -> String {
    let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let ok = style.paint(Paint::Good, "ok");
    parts.iter().map(|(name, found)| format!("{ok}  {name:width$}  {found}\n")).collect()
}

/// `doctor`: a line for each finding and for each thing done; with `repair` also what is left.
pub fn examined(examination: &Examination, repair: bool, style: Style) -> String {
    let Examination { findings, done, left, is_sound } = examination;
    let lines = |paint: Paint, word: &str, what: &[String]| -> String {
        let word = style.paint(paint, word);
        what.iter().map(|line| format!("{word}  {line}\n")).collect()
    };
    let mut page = lines(Paint::Warning, "found", findings);
    page.push_str(&lines(Paint::Good, "done ", done));
    page.push_str(&lines(Paint::Bad, "left ", left));
    if findings.is_empty() {
        page.push_str(&format!("{}  the store holds what it must\n", style.paint(Paint::Good, "ok")));
    } else if !repair {
        page.push_str("Nothing was changed; `smsctl doctor --repair` puts right what can be.\n");
    } else if *is_sound {
        page.push_str(&format!("{}  the store holds what it must again\n", style.paint(Paint::Good, "ok")));
    }
    page
}

/// `send`: the id of the message that the ingress took.
pub fn sent(id: &MessageId) -> String {
    format!("{id}\n")
}

/// Names and values side by side, the names faint and of one width.
fn facts(style: Style, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(&str, String)| {
        format!("{}{}  {value}\n", style.paint(Paint::Faint, name), " ".repeat(width - name.len()))
    };
    facts.iter().map(line).collect()
}

/// A count and what it counts; painted unless it is 0.
fn labelled(style: Style, number: i128, name: &str, paint: Paint) -> String {
    let text = format!("{} {name}", count(number));
    style.paint(if number == 0 { Paint::Plain } else { paint }, &text)
}

/// A text of somebody's, set apart from ours.
fn indented(text: &str) -> String {
    harmless(text, true).split('\n').map(|line| format!("  | {line}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Attempt, DeadCause, DeliveryId, Reason};
    use crate::message::{Address, Body, InboundMessage};
    use crate::queue::contract::DeliveryStatus;

    fn id() -> MessageId {
        MessageId::of_source("test", "1").unwrap()
    }

    fn dead(body: &str) -> DeadLetterText {
        let message = InboundMessage {
            id: id(),
            source: "twilio".to_owned(),
            from: Address::parse("+12223334444").unwrap(),
            to: Address::parse("+15005550006").unwrap(),
            body: Body::new(body),
            trace: None,
        };
        let attempt = Attempt {
            at: Timestamp::from_millis(1_500),
            outcome: "retry".to_owned(),
            reason: Reason::Timeout,
            status: None,
            code: None,
            ambiguous: true,
        };
        let letter = DeadLetter {
            id: DeliveryId { message: id(), index: 2 },
            channel: "sms".to_owned(),
            destination: Some("+1******2222".to_owned()),
            subscriber: "Git\u{1b}[2JHub".to_owned(),
            cause: DeadCause::Exhausted,
            attempts: 1_000,
            maybe_sent: true,
            accepted_at: Timestamp::from_millis(1_000),
            died_at: Timestamp::from_millis(201_000),
            history: vec![attempt],
        };
        DeadLetterText { letter, payload: Some(message.to_payload()) }
    }

    #[test]
    fn the_store_is_shown_by_sums_and_by_channel() {
        let lane = |lane: &str, ready, oldest_ready_age_s| LaneDepth {
            lane: lane.to_owned(),
            ready,
            leased: 0,
            delayed: 2,
            oldest_ready_age_s,
            paused: 1,
        };
        let counts = Stats {
            accepted: 1_204,
            delivered: 2_400,
            pending: 7,
            lanes: vec![lane("in", 0, 0.0), lane("sms", 3, 75.0)],
            dead_letters: vec![(DeadCause::Permanent, 0), (DeadCause::Exhausted, 5)],
            ..Stats::default()
        };
        let expected = "\
messages      1,204 accepted   0 duplicate
deliveries    2,400 delivered   0 dead   0 expired   7 pending
queue         3 ready   0 leased   4 delayed   oldest ready 1m 15s
dead letters  5 kept   5 exhausted

channel  ready  leased  delayed  oldest  paused
in           0       0        2       -       1
sms          3       0        2  1m 15s       1
";
        assert_eq!(stats(&counts, Style::PLAIN), expected);
        let tampered = Stats { conservation_error: -2, ..Stats::default() };
        assert!(stats(&tampered, Style::PLAIN).contains("do not add up: -2 "));
        let line = stats_line(&counts, Timestamp::from_millis(0));
        assert!(line.starts_with("1970-01-01T00:00:00.000Z accepted=1204 duplicates=0 "), "{line}");
        assert!(line.ends_with(" delayed=4 dead_letters=5\n"), "{line}");
        let screen = stats_screen(&counts, false, Style::PLAIN);
        assert!(
            screen.starts_with("\u{1b}[Hmessages ") && screen.ends_with("1\u{1b}[K\n\u{1b}[J"),
            "{screen:?}"
        );
    }

    #[test]
    fn letters_are_lines_and_foreign_words_cannot_drive_the_terminal() {
        let page = letters(&[dead("").letter], 1, Style::PLAIN);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 3, "{page}");
        assert!(lines[1].starts_with("test:1/2  1970-01-01T00:03:21.000Z  exhausted  sms "), "{page}");
        assert!(lines[1].ends_with("Git\u{fffd}[2JHub     1,000  yes         timeout"), "{page}");
        assert!(lines[2].contains("--limit"), "{page}");
        assert_eq!(letters(&[dead("").letter], 50, Style::PLAIN).lines().count(), 2);
        assert_eq!(letters(&[], 50, Style::PLAIN), "No dead letters.\n");
        assert!(!letters(&[dead("").letter], 50, super::super::style::COLOURED).contains("\u{1b}[2J"));
    }

    #[test]
    fn a_letter_shows_its_attempts_and_its_text_only_when_told_to() {
        let found = dead("line one\n\u{1b}]0;title\u{7}two");
        let hidden = letter(&found, false, Style::PLAIN);
        assert!(hidden.contains("died         1970-01-01T00:03:21.000Z (3m 20s later)\n"), "{hidden}");
        assert!(hidden.contains("\n1970-01-01T00:00:01.500Z  retry    timeout       -  -\n"), "{hidden}");
        assert!(!hidden.contains("line one") && !hidden.contains("2223334444"), "{hidden}");
        let shown = letter(&found, true, Style::PLAIN);
        assert!(shown.contains("from  +12223334444\nto    +15005550006\n"), "{shown}");
        assert!(shown.ends_with("  | line one\n  | \u{fffd}]0;title\u{fffd}two\n"), "{shown}");
        let gone = DeadLetterText { payload: None, ..found.clone() };
        assert!(letter(&gone, true, Style::PLAIN).ends_with("\nIts text is gone.\n"));
        let sealed = DeadLetterText { payload: Some(b"{".to_vec()), ..found };
        assert!(letter(&sealed, true, Style::PLAIN).ends_with("\nIts text cannot be read.\n"));
    }

    #[test]
    fn results_of_changes_are_sentences() {
        let counts = |requeued, skipped| Returned { requeued, skipped, unknown: Vec::new() };
        assert_eq!(returned(&counts(1, 0), false), "Requeued 1 dead letter.\n");
        let both = "Would requeue 1,500 dead letters, skipped 2 (the text is gone).\n";
        assert_eq!(returned(&counts(1_500, 2), true), both);
        let none = Purged { purged: 0, unknown: Vec::new() };
        assert_eq!(purged(&none, false), "Purged 0 dead letters.\n");
    }

    #[test]
    fn a_message_is_shown_with_its_deliveries() {
        let delivery = DeliveryStatus {
            channel: "sms".to_owned(),
            destination: Some("+1******2222".to_owned()),
            state: DeliveryState::Delivered,
            attempts: 1,
        };
        let mut message = MessageStatus {
            id: id(),
            expanded: true,
            deadline: Timestamp::from_millis(0),
            deliveries: vec![delivery],
        };
        let head = "message   test:1\nstate     done\ndeadline  1970-01-01T00:00:00.000Z\n";
        let table =
            "channel  destination   state      attempts\nsms      +1******2222  delivered         1\n";
        assert_eq!(status(&message, Style::PLAIN), format!("{head}\n{table}"));
        message.deliveries.clear();
        assert_eq!(status(&message, Style::PLAIN), head);
    }
}
