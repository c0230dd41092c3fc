//! What the URLs of the configuration must be.

use secrecy::SecretString;
use url::Url;

use crate::forbidden::names_forbidden_address;
use crate::message::Malformed;
use crate::queue::redis::RedisAddress;

const FORBIDDEN: Malformed = Malformed("link-local and cloud metadata addresses are never called");

/// Reads the origin of Twilio's API, which may have a path prefix; returned without a slash at its end.
pub(super) fn parse_api_base(text: &str) -> Result<String, Malformed> {
    let expected = "an http or https URL with a host, without user, query and fragment";
    let url = http_url(text, expected)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Malformed(expected));
    }
    if names_forbidden_address(&url) {
        return Err(FORBIDDEN);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn http_url(text: &str, expected: &'static str) -> Result<Url, Malformed> {
    let bad = Malformed(expected);
    // The parser would drop blanks and guess slashes; who signs a URL takes it as written.
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let written_out = rest.is_some_and(|rest| !rest.starts_with('/'));
    if !written_out || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(bad);
    }
    let mut url = Url::parse(text).map_err(|_| bad.clone())?;
    let host = url.host_str().is_some_and(|host| !host.is_empty());
    if !host || url.query().is_some() || url.fragment().is_some() {
        return Err(bad);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Reads the URL of a Redis.
pub(super) fn parse_redis_url(text: &str) -> Result<SecretString, Malformed> {
    match RedisAddress::parse(text) {
        Ok(_) => Ok(SecretString::from(text.to_owned())),
        Err(why) => Err(Malformed(why)),
    }
}

/// A URL without its user, password and path: `https://***@mfa.example.com/…`.
pub(super) fn masked(text: &str) -> String {
    let Ok(url) = Url::parse(text) else { return "***".to_owned() };
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "***@" };
    let host = url.host_str().unwrap_or("");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = if url.path().trim_matches('/').is_empty() { "" } else { "/…" };
    format!("{}://{user}{host}{port}{path}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_may_be_plain_and_private_but_never_a_metadata_service() {
        assert_eq!(parse_api_base("http://127.0.0.1:9/").unwrap(), "http://127.0.0.1:9");
        assert_eq!(parse_api_base("https://api.twilio.com").unwrap(), "https://api.twilio.com");
        assert_eq!(parse_api_base("http://10.0.0.1/twilio/").unwrap(), "http://10.0.0.1/twilio");
        for bad in
            ["http://169.254.169.254", "http://[fe80::1]", "https://u:p@api.twilio.com", "api.twilio.com"]
        {
            assert!(parse_api_base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_masked_url_shows_where_and_not_how() {
        assert_eq!(masked("https://u:p@a.example/x/y"), "https://***@a.example/…");
        assert_eq!(masked("https://a.example/"), "https://a.example");
        assert_eq!(masked("hunter2"), "***");
    }
}
