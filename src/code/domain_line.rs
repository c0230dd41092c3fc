//! The origin-bound line: `@example.com #123456`, which browsers and phones read to offer a code to one site.
//!
//! WICG "Origin-bound one-time codes delivered via SMS": the last line, `@`, a host, a blank, `#`, the code;
//! optionally a blank and `%` (Apple: `@` or `%`) with an embedding host. Gateways join lines, so like Chromium
//! we also take one in the middle of a line, after a blank.

use std::ops::Range;

/// A line that binds a code to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DomainLine<'t> {
    /// The host, as written.
    pub(super) host: &'t str,
    /// The code, as written.
    pub(super) code: &'t str,
    /// Where the `@` is.
    pub(super) start: usize,
    /// Whether it is the whole last line of the text.
    pub(super) last: bool,
}

/// Where the line `@host #code` is that ends a text, from its `@` to its end; `None` where the text ends otherwise.
///
/// A phone offers the code to the pages of that host only while it is the last line
/// ([origin-bound one-time codes](https://wicg.github.io/sms-one-time-codes/#parsing)).
pub fn bound_last_line(text: &str) -> Option<Range<usize>> {
    let line = domain_line(text).filter(|line| line.last)?;
    Some(line.start..text.trim_end().len())
}

/// The longest code of such a line that is taken, in bytes.
const LONGEST_CODE: usize = 64;

/// The last such line of a text.
pub(super) fn domain_line(text: &str) -> Option<DomainLine<'_>> {
    // Each `@` is looked at once, and what follows it only as far as a host and a code can reach.
    text.rmatch_indices('@').take(64).find_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| !c.is_whitespace() && !is_mark(c)) {
            return None;
        }
        let rest = &text[at + 1..];
        let end = rest
            .bytes()
            .take(254)
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            .count();
        let host = &rest[..end];
        let code = rest[end..].strip_prefix(" #")?;
        let end = code.find(|c: char| c.is_whitespace()).unwrap_or(code.len());
        let code = code[..end].trim_end_matches(['.', ',', ';', '\u{3002}']);
        let line_start = text[..at].trim_end_matches(is_mark);
        let own_line = line_start.is_empty() || line_start.ends_with(['\n', '\r']);
        let tail = &rest[host.len()..];
        let last = own_line && !tail.trim_end().contains(['\n', '\r']);
        let fits = is_host(host)
            && !code.is_empty()
            && code.len() <= LONGEST_CODE
            && code.chars().any(char::is_alphanumeric);
        fits.then_some(DomainLine { host, code, start: at, last })
    })
}

/// Marks of writing direction that forwarding phones put before a line.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_host(host: &str) -> bool {
    let mut labels = 0;
    let well_formed = host.split('.').all(|label| {
        labels += 1;
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    });
    let top = host.rsplit('.').next().unwrap_or_default();
    well_formed
        && ((labels >= 2 && top.len() >= 2 && top.bytes().any(|byte| byte.is_ascii_alphabetic()))
            || host.eq_ignore_ascii_case("localhost"))
}
