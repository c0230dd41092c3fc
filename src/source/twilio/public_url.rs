//! The URL Twilio calls, as the operator wrote it, and the spellings of it that Twilio may sign.
//!
//! Twilio signs the URL it was given, byte for byte, but its back end is not consistent about ports and
//! apostrophes; its own libraries therefore try several spellings (twilio-python `request_validator.py`,
//! twilio-node `webhooks.ts`). So does [`PublicUrl::spellings`]. Nothing else is normalised: not the
//! case, not the order of a query, not an escape.

use std::fmt;

use url::Url;

use crate::message::Malformed;

const EXPECTED: Malformed =
    Malformed("an http or https URL with a host, without query and fragment: \"https://mfa.example.com\"");

/// Origin, and path prefix if there is one, that Twilio calls. It may hold a user and a password, which
/// neither `Debug` nor [`PublicUrl::masked`] shows.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: String,
    /// With its `@`; empty when there is none.
    user: String,
    host: String,
    /// With its `:`; empty when there is none.
    port: String,
    /// Without a slash at its end; empty when there is none.
    prefix: String,
}

impl PublicUrl {
    /// Reads an http or https URL with a host; user, password and path are allowed, query and fragment
    /// are not. Slashes at its end are dropped, everything else is kept as written.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let is_http = ["http", "https"].into_iter().any(|known| scheme.eq_ignore_ascii_case(known));
        // A URL parser would drop blanks, turn backslashes and guess missing slashes: who signs does not.
        let written_out = !rest.starts_with('/')
            && !rest.contains(|c: char| c.is_whitespace() || c.is_control() || "\\?#".contains(c));
        let has_host = Url::parse(text).is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()));
        if !is_http || !written_out || !has_host {
            return Err(EXPECTED);
        }
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, place) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        // The colons of an IPv6 address stand in brackets.
        let host_end = place.rfind(']').unwrap_or(0);
        let (host, port) =
            place.split_at(place[host_end..].find(':').map_or(place.len(), |at| host_end + at));
        Ok(Self {
            scheme: scheme.to_owned(),
            user: user.to_owned(),
            host: host.to_owned(),
            // A colon without a number is no port.
            port: if port == ":" { String::new() } else { port.to_owned() },
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }

    /// The whole, without a slash at its end. Secret when it [has a user](Self::has_user).
    pub fn as_written(&self) -> String {
        let Self { scheme, user, host, port, prefix } = self;
        format!("{scheme}://{user}{host}{port}{prefix}")
    }

    /// Whether it holds a user, and so most likely a password.
    pub fn has_user(&self) -> bool {
        !self.user.is_empty()
    }

    /// The path prefix, without a slash at its end; empty when there is none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a URL leads to the same scheme, host and port.
    pub fn has_origin_of(&self, url: &Url) -> bool {
        Url::parse(&self.as_written()).is_ok_and(|own| own.origin() == url.origin())
    }

    /// Fit to be shown: `https://***@mfa.example.com/…`.
    pub fn masked(&self) -> String {
        let user = if self.has_user() { "***@" } else { "" };
        let path = if self.prefix.is_empty() { "" } else { "/…" };
        format!("{}://{user}{}{}{path}", self.scheme, self.host, self.port)
    }

    /// Every URL that Twilio may have signed for a request to `target` (path and query as received),
    /// likeliest first: at most twelve.
    pub(super) fn spellings(&self, target: &str) -> Vec<String> {
        let origins = self.origins();
        let targets = targets(target);
        let urls = targets
            .iter()
            .flat_map(|target| origins.iter().map(move |origin| format!("{origin}{}{target}", self.prefix)));
        urls.collect()
    }

    /// User and password kept and dropped; the port as written and without, or without and the default.
    fn origins(&self) -> Vec<String> {
        let other_port = match self.port.as_str() {
            "" if self.scheme.eq_ignore_ascii_case("https") => ":443",
            "" => ":80",
            _ => "",
        };
        let users = if self.has_user() { vec![self.user.as_str(), ""] } else { vec![""] };
        let pairs = users.into_iter().flat_map(|user| [(user, self.port.as_str()), (user, other_port)]);
        pairs.map(|(user, port)| format!("{}://{user}{}{port}", self.scheme, self.host)).collect()
    }
}

/// `target` in the spellings Twilio may have signed: apostrophes of the query raw or escaped, and the
/// path `/` left out, as it is when the webhook was registered without any path.
fn targets(target: &str) -> Vec<String> {
    let mut all = vec![target.to_owned()];
    if target.contains('\'') {
        all.push(target.replace('\'', "%27"));
    } else if target.contains("%27") {
        all.push(target.replace("%27", "'"));
    }
    if let Some(query) = target.strip_prefix('/').filter(|rest| rest.is_empty() || rest.starts_with('?')) {
        all.push(query.to_owned());
    }
    all
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_origin_that_may_have_a_prefix_and_a_user_and_is_kept_as_written() {
        for (text, kept) in [
            ("https://mfa.example.com", "https://mfa.example.com"),
            ("https://mfa.example.com/", "https://mfa.example.com"),
            ("HTTPS://MFA.example.com:443", "HTTPS://MFA.example.com:443"),
            ("https://mfa.example.com:", "https://mfa.example.com"),
            ("http://127.0.0.1:8080/a/../b//", "http://127.0.0.1:8080/a/../b"),
            ("https://user:p:w@mfa.example.com", "https://user:p:w@mfa.example.com"),
            ("https://us@er:p%40w@mfa.example.com:1/x", "https://us@er:p%40w@mfa.example.com:1/x"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x"),
            ("https://[::1]", "https://[::1]"),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().as_written(), kept);
        }
        for bad in [
            "",
            "mfa.example.com",
            "https:mfa.example.com",
            "ftp://mfa.example.com",
            "https://",
            "https:///x",
            "https://user@",
            "https://a:port",
            "https://a:70000",
            "https://a/?q=1",
            "https://a/#rc=5",
            "https://a/?",
            " https://a",
            "https://a b",
            "https:\\\\a",
            "https://a\\b",
        ] {
            assert_eq!(PublicUrl::parse(bad), Err(EXPECTED), "{bad:?}");
        }
    }

    #[test]
    fn a_password_and_a_prefix_are_not_shown() {
        let url = PublicUrl::parse("https://hook:s3cret@mfa.example.com:8443/private").unwrap();
        assert_eq!(url.masked(), "https://***@mfa.example.com:8443/…");
        assert_eq!(format!("{url:?}"), url.masked());
        assert_eq!(PublicUrl::parse("https://mfa.example.com/").unwrap().masked(), "https://mfa.example.com");
    }

    #[test]
    fn the_likeliest_spelling_comes_first_and_there_are_at_most_twelve() {
        let spellings = |url: &str, target: &str| PublicUrl::parse(url).unwrap().spellings(target);
        assert_eq!(
            spellings("https://x.example", "/sms?a=1"),
            ["https://x.example/sms?a=1", "https://x.example:443/sms?a=1"]
        );
        assert_eq!(
            spellings("http://x.example:8080/in", "/"),
            [
                "http://x.example:8080/in/",
                "http://x.example/in/",
                "http://x.example:8080/in",
                "http://x.example/in"
            ]
        );
        let most = spellings("https://u:p@x.example:8443", "/?q='");
        assert_eq!(most.len(), 12);
        assert_eq!(most[0], "https://u:p@x.example:8443/?q='");
        assert_eq!(most[11], "https://x.example?q='");
    }
}
