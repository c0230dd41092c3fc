//! Templates: from a message to the text a channel sends.
//!
//! A template is the operator's and goes out as it is; what is put into it came from strangers and is
//! escaped for the channel. Values are never looked at for placeholders.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::code::{Code, Recognised, bound_last_line};
use crate::delivery::ChannelId;
use crate::message::{Address, Body};

/// What is sent to a phone where the configuration says nothing; also the template of a channel that
/// has none of its own.
pub const DEFAULT_SMS: &str = "MFA challenge from {name}\n{body}";

/// What is sent to Slack where the configuration says nothing.
pub const DEFAULT_SLACK: &str = "*New MFA challenge*\n From: {name}\n\n```\n{body}\n```";

/// What a template can be filled with.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The subscriber's name: `{name}`.
    pub name: &'a str,
    /// The text that arrived: `{body}`.
    pub body: &'a Body,
    /// Who sent it: `{from}`.
    pub from: &'a Address,
    /// Our number that received it: `{to}`.
    pub to: &'a Address,
    /// What was recognised in it: `{code}` `{service}` `{expires_in}` `{domain}`. Looked at only where
    /// [`Templates::tell_what_was_recognised`].
    pub found: &'a Recognised,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Name,
    Body,
    From,
    To,
    Code,
    Service,
    ExpiresIn,
    Domain,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 8] = [
        ("name", Self::Name),
        ("body", Self::Body),
        ("from", Self::From),
        ("to", Self::To),
        ("code", Self::Code),
        ("service", Self::Service),
        ("expires_in", Self::ExpiresIn),
        ("domain", Self::Domain),
    ];

    /// What is put in its place. What a text does not tell has words that read well in a sentence.
    fn value<'a>(self, fields: &Fields<'a>) -> Cow<'a, str> {
        let found = fields.found;
        Cow::Borrowed(match self {
            Self::Name => fields.name,
            Self::Body => fields.body.expose(),
            Self::From => fields.from.as_str(),
            Self::To => fields.to.as_str(),
            Self::Code => found.code.as_ref().map_or("no code found", Code::expose),
            Self::Service => found.service.as_deref().unwrap_or("unknown service"),
            Self::Domain => found.domain.as_deref().unwrap_or("no stated site"),
            Self::ExpiresIn => match found.expires_in {
                Some(life) => return Cow::Owned(in_words(life)),
                None => "an unstated time",
            },
        })
    }

    fn is_recognised(self) -> bool {
        matches!(self, Self::Code | Self::Service | Self::ExpiresIn | Self::Domain)
    }
}

/// A duration as people say it, in its largest whole unit: `10 minutes`, `1 hour`, `90 seconds`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60)];
    // A day is said when there are several: "24 hours" is what the texts themselves say.
    let fits =
        |size: u64| seconds >= size && seconds.is_multiple_of(size) && (size < 86_400 || seconds > size);
    let (unit, size) = units.into_iter().find(|(_, size)| fits(*size)).unwrap_or(("second", 1));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

/// How a channel wants its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    /// As they are.
    None,
    /// Slack's three entities, and no back-tick, which would end the code block around the text.
    Slack,
}

impl Escaping {
    fn of(channel: &ChannelId) -> Self {
        if *channel == ChannelId::slack() { Self::Slack } else { Self::None }
    }

    fn push(self, value: &str, out: &mut String) {
        match self {
            Self::None => out.push_str(value),
            Self::Slack => {
                for c in value.chars() {
                    match c {
                        '&' => out.push_str("&amp;"),
                        '<' => out.push_str("&lt;"),
                        '>' => out.push_str("&gt;"),
                        // Looks the same and means nothing to Slack.
                        '`' => out.push('\u{2cb}'),
                        c => out.push(c),
                    }
                }
            }
        }
    }
}

/// A template that was read and can be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    escaping: Escaping,
}

impl Template {
    fn fill(&self, fields: &Fields<'_>) -> Body {
        let body = fields.body.expose();
        let text = self.filled(fields, body);
        let line = bound_last_line(body).map(|at| &body[at]).filter(|_| self.keeps_lines());
        match line {
            Some(line) if bound_last_line(&text).is_none_or(|at| text[at] != *line) => {
                let rest = body.trim_end().strip_suffix(line).unwrap_or(body).trim_end();
                let text = self.filled(fields, rest);
                Body::new(format!("{}\n{line}", text.trim_end()))
            }
            _ => Body::new(text),
        }
    }

    /// Whether a line `@host #code` that ends the text must end what is sent too, or the phone no longer offers the
    /// code. Only a phone does that, and only where the template has the text at all.
    fn keeps_lines(&self) -> bool {
        self.escaping == Escaping::None && self.pieces.contains(&Piece::Value(Placeholder::Body))
    }

    fn filled(&self, fields: &Fields<'_>, body: &str) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Value(Placeholder::Body) => self.escaping.push(body, &mut text),
                Piece::Value(placeholder) => self.escaping.push(&placeholder.value(fields), &mut text),
            }
        }
        text
    }
}

/// One template for each channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    by_channel: BTreeMap<ChannelId, Template>,
    plain: Template,
}

impl Default for Templates {
    fn default() -> Self {
        let built_in = |channel: &ChannelId, text| {
            Self::parse(channel, text).expect("the built-in templates are tested to be well formed")
        };
        let by_channel = [(ChannelId::sms(), DEFAULT_SMS), (ChannelId::slack(), DEFAULT_SLACK)]
            .map(|(channel, text)| (channel.clone(), built_in(&channel, text)));
        Self { by_channel: by_channel.into(), plain: built_in(&ChannelId::sms(), DEFAULT_SMS) }
    }
}

impl Templates {
    /// Reads the template of one channel: text, `{name}` `{body}` `{from}` `{to}` `{code}` `{service}`
    /// `{expires_in}` `{domain}`, and `{{` `}}` for braces. Says every fault in one line, fit to stand behind the key it was found at.
    pub fn parse(channel: &ChannelId, text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut faults = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
            } else if brace == "}" {
                faults.push("a `}` without its `{` (write `}}` for a brace)".to_owned());
            } else if let Some((name, behind)) = placeholder_name(rest) {
                rest = behind;
                match Placeholder::ALL.into_iter().find(|(known, _)| *known == name) {
                    Some((_, placeholder)) => {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                        pieces.push(Piece::Value(placeholder));
                    }
                    None => faults.push(unknown(name)),
                }
            } else {
                faults.push("a `{` without its `}` (write `{{` for a brace)".to_owned());
            }
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        if faults.is_empty() {
            Ok(Template { pieces, escaping: Escaping::of(channel) })
        } else {
            Err(faults.join("; "))
        }
    }

    /// Sets the template of `channel`, which [`Templates::parse`] read for it.
    pub fn set(&mut self, channel: ChannelId, template: Template) {
        self.by_channel.insert(channel, template);
    }

    /// The text that `channel` sends, escaped for it.
    pub fn render(&self, channel: &ChannelId, fields: &Fields<'_>) -> Body {
        self.of(channel).fill(fields)
    }

    /// Whether the template of `channel` has a placeholder for what is recognised in a text.
    pub fn tell_what_was_recognised(&self, channel: &ChannelId) -> bool {
        let told = |piece: &Piece| matches!(piece, Piece::Value(placeholder) if placeholder.is_recognised());
        self.of(channel).pieces.iter().any(told)
    }

    /// What the template of `channel` says itself, placeholders left out.
    pub fn own_words(&self, channel: &ChannelId) -> String {
        let words = self.of(channel).pieces.iter().filter_map(|piece| match piece {
            Piece::Text(literal) => Some(literal.as_str()),
            Piece::Value(_) => None,
        });
        words.collect()
    }

    fn of(&self, channel: &ChannelId) -> &Template {
        self.by_channel.get(channel).unwrap_or(&self.plain)
    }
}

/// Splits `name}rest`; `None` when the placeholder does not end, or another begins before it does.
fn placeholder_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(['{', '}'])?;
    text[end..].starts_with('}').then(|| (&text[..end], &text[end + 1..]))
}

fn unknown(name: &str) -> String {
    // What stands between two braces may be anything, a secret by mistake included.
    let word =
        !name.is_empty() && name.len() <= 24 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if word {
        let lower = name.to_ascii_lowercase();
        let (nearest, _) = Placeholder::ALL
            .into_iter()
            .min_by_key(|(known, _)| strsim::damerau_levenshtein(known, &lower))
            .expect("there are placeholders");
        format!("`{{{name}}}` is no placeholder; did you mean `{{{nearest}}}`?")
    } else {
        let all: Vec<String> = Placeholder::ALL.iter().map(|(known, _)| format!("{{{known}}}")).collect();
        format!("braces hold a placeholder: {} (write `{{{{` and `}}}}` for braces)", all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::Recogniser;

    fn render(channel: &ChannelId, template: &str, name: &str, body: &str) -> String {
        render_found(channel, template, name, body, &Recognised::default())
    }

    fn render_found(
        channel: &ChannelId,
        template: &str,
        name: &str,
        body: &str,
        found: &Recognised,
    ) -> String {
        let mut templates = Templates::default();
        templates.set(channel.clone(), Templates::parse(channel, template).unwrap());
        fill_found(&templates, channel, name, body, found)
    }

    fn fill(templates: &Templates, channel: &ChannelId, name: &str, body: &str) -> String {
        fill_found(templates, channel, name, body, &Recognised::default())
    }

    fn fill_found(
        templates: &Templates,
        channel: &ChannelId,
        name: &str,
        body: &str,
        found: &Recognised,
    ) -> String {
        let from = Address::parse("A<T&T>").unwrap();
        let to = Address::parse("+15005550006").unwrap();
        let fields = Fields { name, body: &Body::new(body), from: &from, to: &to, found };
        templates.render(channel, &fields).expose().to_owned()
    }

    fn fault(template: &str) -> String {
        Templates::parse(&ChannelId::sms(), template).unwrap_err()
    }

    #[test]
    fn the_defaults_say_who_and_what() {
        let templates = Templates::default();
        assert_eq!(
            fill(&templates, &ChannelId::sms(), "GitHub", "code 493817"),
            "MFA challenge from GitHub\ncode 493817"
        );
        assert_eq!(
            fill(&templates, &ChannelId::slack(), "GitHub", "code 493817"),
            "*New MFA challenge*\n From: GitHub\n\n```\ncode 493817\n```"
        );
        let other = ChannelId::parse("telegram").unwrap();
        assert_eq!(fill(&templates, &other, "GitHub", "x"), "MFA challenge from GitHub\nx");
    }

    #[test]
    fn every_field_can_be_used_any_number_of_times_and_braces_are_doubled() {
        let text = render(&ChannelId::sms(), "{{{name}}} {to}{from}{body}{body}{{}}", "N", "B");
        assert_eq!(text, "{N} +15005550006A<T&T>BB{}");
        assert_eq!(render(&ChannelId::sms(), "", "N", "B"), "");
    }

    #[test]
    fn values_are_not_searched_for_placeholders() {
        assert_eq!(render(&ChannelId::sms(), "{name}: {body}", "{body}", "{to} {{ }"), "{body}: {to} {{ }");
    }

    #[test]
    fn slack_gets_its_entities_and_nothing_that_pings_links_or_ends_the_code_block() {
        let slack = ChannelId::slack();
        let text =
            render(&slack, "<b>`{name}`\n```\n{body}\n```", "a`<!here>", "```<!channel> <http://x|y> &amp;");
        assert_eq!(text, "<b>`aˋ&lt;!here&gt;`\n```\nˋˋˋ&lt;!channel&gt; &lt;http://x|y&gt; &amp;amp;\n```");
        assert_eq!(render(&slack, "{from}", "", ""), "A&lt;T&amp;T&gt;");
        assert_eq!(render(&ChannelId::sms(), "{from}{body}", "", "`<&>`"), "A<T&T>`<&>`");
    }

    #[test]
    fn an_unknown_placeholder_is_a_fault_that_names_the_nearest() {
        assert_eq!(fault("{boby}"), "`{boby}` is no placeholder; did you mean `{body}`?");
        assert_eq!(fault("{Name}"), "`{Name}` is no placeholder; did you mean `{name}`?");
        assert_eq!(fault("{form}"), "`{form}` is no placeholder; did you mean `{from}`?");
        assert!(fault("{boby} {form}").contains("`{body}`?; `{form}`"));
    }

    const TELLING: &str = "{code} from {service}, for {expires_in}, at {domain}";

    #[test]
    fn what_was_recognised_can_be_said_and_what_was_not_has_words() {
        let recogniser = Recogniser::new();
        let say = |channel: ChannelId, template: &str, body: &str| {
            render_found(&channel, template, "N", body, &recogniser.recognise(body, None))
        };
        let body = "481902 is your Fernway code, valid for 10 minutes.\n\n@fernway.example #481902";
        let said = say(ChannelId::sms(), TELLING, body);
        assert_eq!(said, "481902 from Fernway, for 10 minutes, at fernway.example");
        let said = say(ChannelId::sms(), TELLING, "See you at noon");
        assert_eq!(said, "no code found from unknown service, for an unstated time, at no stated site");
        let said = say(ChannelId::slack(), "{service}: {code}", "[A<b>`] Your code is 481902");
        assert!(!said.contains(['<', '>', '`']), "{said}");
    }

    #[test]
    fn a_domain_bound_line_stays_the_last_one_whatever_the_template_says_behind_the_text() {
        let sms = ChannelId::sms();
        let body = "481902 is your code.\n\n@fernway.example #481902";
        assert_eq!(fill(&Templates::default(), &sms, "N", body), format!("MFA challenge from N\n{body}"));
        assert_eq!(
            render(&sms, "{body}\n-- by N", "N", body),
            "481902 is your code.\n-- by N\n@fernway.example #481902"
        );
        assert_eq!(render(&sms, "{name}: {body}", "N", "@a.example #1a"), "N:\n@a.example #1a");
        // Another line that binds a code, the operator's or a second one of the text, is not the text's last.
        let two = "@a.example #111111\n@b.example #222222\n";
        assert_eq!(render(&sms, "{body}.", "N", two), "@a.example #111111.\n@b.example #222222");
        // Nothing is added where the text is not sent, nor where no phone reads it.
        assert_eq!(render(&sms, "{name}", "N", body), "N");
        assert_eq!(render(&ChannelId::slack(), "{body}!", "N", body), format!("{body}!"));
    }

    #[test]
    fn a_text_is_read_only_for_templates_that_ask_for_it() {
        let mut templates = Templates::default();
        assert!(!templates.tell_what_was_recognised(&ChannelId::sms()));
        for placeholder in ["code", "service", "expires_in", "domain"] {
            let template = Templates::parse(&ChannelId::sms(), &format!("{{{placeholder}}}")).unwrap();
            templates.set(ChannelId::sms(), template);
            assert!(templates.tell_what_was_recognised(&ChannelId::sms()), "{placeholder}");
        }
        assert!(!templates.tell_what_was_recognised(&ChannelId::slack()));
    }

    #[test]
    fn durations_are_said_in_their_largest_whole_unit() {
        for (seconds, said) in [
            (1, "1 second"),
            (90, "90 seconds"),
            (60, "1 minute"),
            (600, "10 minutes"),
            (3_600, "1 hour"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn lonely_braces_are_faults_and_quote_nothing() {
        for template in
            ["{", "a{", "{name", "{name {body}", "}", "{name}}", "{{name}", "{}", "{ name }", "{sécret}"]
        {
            let fault = fault(template);
            assert!(fault.contains("brace") && !fault.contains("cret"), "{template}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_written_with_doubled_braces(text in "\\PC*") {
            let template = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&ChannelId::sms(), &template, "N", "B"), text);
        }

        #[test]
        fn reading_a_template_never_panics(text in "[a-z{} é]*") {
            let _ = Templates::parse(&ChannelId::slack(), &text);
        }

        #[test]
        fn no_body_leaves_the_code_block(body in "[`<>&a \\n]*") {
            let text = fill(&Templates::default(), &ChannelId::slack(), "N", &body);
            prop_assert_eq!(text.matches('`').count(), 6);
            prop_assert!(text.ends_with("\n```") && !text.contains(['<', '>']));
        }
    }
}
