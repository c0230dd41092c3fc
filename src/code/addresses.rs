//! Links, mail addresses, host names and app hashes: what holds digits and words that mean nothing here.

use super::lexicon::Span;
use super::reading::Reading;

/// Where the addresses of a text are.
pub(super) struct Addresses {
    /// All of them, in order.
    pub(super) spans: Vec<Span>,
    /// The host names among them.
    pub(super) hosts: Vec<Span>,
}

impl Addresses {
    pub(super) fn of(reading: &Reading<'_>) -> Self {
        let mut found = Self { spans: Vec::new(), hosts: Vec::new() };
        let bytes = reading.bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !bytes[at].is_ascii_graphic() {
                at += 1;
                continue;
            }
            let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_graphic()).count();
            found.read(reading, at, end);
            at = end;
        }
        found
    }

    /// Whether the span touches one of them.
    pub(super) fn touch(&self, span: Span) -> bool {
        let before = self.spans.partition_point(|one| one.end <= span.start);
        self.spans[before..].first().is_some_and(|one| one.overlaps(span))
    }

    /// Reads one run of visible ASCII.
    fn read(&mut self, reading: &Reading<'_>, start: usize, end: usize) {
        let token = &reading.text()[start..end];
        if is_app_hash(reading, start, end) {
            self.spans.push(Span { start, end });
            return;
        }
        let from = match token.find("://") {
            Some(at) => {
                let scheme = token[..at].bytes().rev().take_while(u8::is_ascii_alphanumeric).count();
                let host = start + at + 3;
                self.host(reading, host, end);
                self.spans.push(Span { start: start + at - scheme, end });
                return;
            }
            None if token.starts_with("www.") => {
                self.host(reading, start, end);
                self.spans.push(Span { start, end });
                return;
            }
            None => start,
        };
        if let Some(at) = token.find('@')
            && at > 0
            && token.as_bytes()[at - 1].is_ascii_alphanumeric()
            && token.as_bytes().get(at + 1).is_some_and(u8::is_ascii_alphanumeric)
        {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
            let before = token[..at].bytes().rev().take_while(is_part).count();
            let after = token[at + 1..].bytes().take_while(is_part).count();
            self.spans.push(Span { start: start + at - before, end: start + at + 1 + after });
            return;
        }
        self.bare(reading, from, end);
    }

    /// Notes the host that a link begins with.
    fn host(&mut self, reading: &Reading<'_>, start: usize, end: usize) {
        let length = reading.bytes()[start..end].iter().take_while(|byte| is_host_byte(**byte)).count();
        if length > 0 {
            self.hosts.push(Span { start, end: start + length });
        }
    }

    /// Host names without a scheme, with or without a path.
    fn bare(&mut self, reading: &Reading<'_>, start: usize, end: usize) {
        let bytes = reading.bytes();
        let mut at = start;
        while at < end {
            if !bytes[at].is_ascii_alphanumeric() {
                at += 1;
                continue;
            }
            let mut stop = at + bytes[at..end].iter().take_while(|byte| is_host_byte(**byte)).count();
            while matches!(bytes[stop - 1], b'.' | b'-') {
                stop -= 1;
            }
            let path = match bytes.get(stop) {
                Some(b'/') => stop < end,
                Some(b':') => bytes.get(stop + 1).is_some_and(u8::is_ascii_digit) && stop + 1 < end,
                _ => false,
            };
            if is_host(reading, at, stop, path) {
                self.hosts.push(Span { start: at, end: stop });
                let last = if path { end } else { stop };
                self.spans.push(Span { start: at, end: last });
                at = last;
            } else {
                at = stop;
            }
        }
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-'
}

/// Whether `start..end` is the name of a host and not two words with a stop between them.
fn is_host(reading: &Reading<'_>, start: usize, end: usize, path: bool) -> bool {
    let name = &reading.text()[start..end];
    let Some((rest, last)) = name.rsplit_once('.') else { return false };
    let label = rest.rsplit('.').next().unwrap_or(rest);
    let last_at = end - last.len();
    // "…123456.Do not share": a capital after the stop begins a sentence, unless all is in capitals.
    let glued = reading.is_capital(last_at) && !reading.is_capitals(start, end);
    last.len() >= 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
        && label.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !name.contains("..")
        && !glued
        && (path || TOP_LEVEL.contains(&last))
}

/// The hash that Android's SMS Retriever asks for: eleven characters of base64 that are no word.
fn is_app_hash(reading: &Reading<'_>, start: usize, end: usize) -> bool {
    if end - start != 11 {
        return false;
    }
    let bytes = &reading.bytes()[start..end];
    if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')) {
        return false;
    }
    let count = |test: &dyn Fn(usize) -> bool| (start..end).filter(|at| test(*at)).count();
    let capitals = count(&|at| reading.is_capital(at));
    let small = count(&|at| reading.bytes()[at].is_ascii_alphabetic() && !reading.is_capital(at));
    let others = count(&|at| !reading.bytes()[at].is_ascii_alphabetic());
    let digits = count(&|at| reading.bytes()[at].is_ascii_digit());
    let inner = count(&|at| at > start && reading.is_capital(at));
    small > 0 && digits < 8 && ((capitals > 0 && others > 0) || inner >= 2)
}

/// Top-level domains that bare host names in texts have. Links with a path may have any.
const TOP_LEVEL: &[&str] = &[
    "com", "net", "org", "io", "co", "gov", "edu", "app", "dev", "info", "biz", "shop", "online", "site",
    "store", "xyz", "link", "page", "live", "cloud", "asia", "mobi", "pro", "club", "top", "vip", "bank",
    "money", "eu", "de", "fr", "uk", "nl", "it", "es", "ch", "at", "be", "pl", "cz", "sk", "hu", "ro", "bg",
    "gr", "tr", "ru", "ua", "by", "kz", "il", "ae", "sa", "ir", "pk", "in", "lk", "bd", "np", "cn", "hk",
    "tw", "jp", "kr", "sg", "my", "th", "vn", "id", "ph", "au", "nz", "za", "ng", "ke", "gh", "eg", "ma",
    "br", "mx", "ar", "cl", "pe", "us", "ca", "ie", "pt", "se", "no", "dk", "fi", "is", "ee", "lv", "lt",
    "me", "tv", "cc", "ai", "ly", "gl", "hr", "rs", "si", "ba", "mk", "al", "ge", "am", "az", "uz", "lu",
    "cat", "et", "tz", "ug", "mz", "qa", "kw", "om", "bh", "jo", "lb", "iq", "su", "im", "to", "fm", "so",
    "gg", "tech", "world", "team", "work", "health", "care", "finance", "pay", "games", "game", "email",
    "email", "chat", "social", "travel", "taxi", "delivery",
];
