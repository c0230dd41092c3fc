//! What the URLs of the configuration must be.

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use crate::forbidden::names_forbidden_address;
use crate::message::Malformed;
use crate::queue::redis::RedisAddress;
use crate::telemetry::Collector;

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

/// Reads the base URL of a collector of traces, which may have user, password and a path prefix.
pub(super) fn parse_collector(text: &str) -> Result<Collector, Malformed> {
    let expected = "an http or https URL with a host, without query and fragment: \"http://127.0.0.1:4318\"";
    let mut base = http_url(text, expected)?;
    if names_forbidden_address(&base) {
        return Err(FORBIDDEN);
    }
    if base.path().ends_with("/v1/traces") {
        return Err(Malformed("the collector's base URL: /v1/traces is added to it"));
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (plain(base.username()), base.password().map(plain));
    let has_user = !user.is_empty() || password.is_some();
    let basic = has_user.then(|| (user, SecretString::from(password.unwrap_or_default())));
    // A URL with a host takes both.
    let cleared = base.set_username("").and_then(|()| base.set_password(None));
    cleared.map_err(|()| Malformed(expected))?;
    Ok(Collector { base, basic })
}

/// A collector's URL without user, password and path.
pub(super) fn masked_collector(collector: &Collector) -> String {
    let shown = masked(collector.base.as_str());
    if collector.basic.is_some() { shown.replacen("://", "://***@", 1) } else { shown }
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
    use secrecy::ExposeSecret;

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
    fn a_collector_has_an_address_and_may_have_a_password() {
        let parsed = parse_collector("https://us%40er:p%20w@otlp.example/prefix/").unwrap();
        assert_eq!(parsed.base.as_str(), "https://otlp.example/prefix");
        let (user, password) = parsed.basic.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("us@er", "p w"));
        assert_eq!(masked_collector(&parsed), "https://***@otlp.example/…");
        assert_eq!(format!("{parsed:?}"), "Collector");
        let plain = parse_collector("http://127.0.0.1:4318").unwrap();
        assert_eq!(
            (plain.basic.is_none(), masked_collector(&plain)),
            (true, "http://127.0.0.1:4318".to_owned())
        );
        for bad in [
            "",
            "127.0.0.1:4318",
            "grpc://127.0.0.1:4317",
            "http://",
            "http://c/v1/traces",
            "http://c?key=secret",
            "http://169.254.169.254",
        ] {
            assert!(parse_collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_masked_url_shows_where_and_not_how() {
        assert_eq!(masked("https://u:p@a.example/x/y"), "https://***@a.example/…");
        assert_eq!(masked("https://a.example/"), "https://a.example");
        assert_eq!(masked("hunter2"), "***");
    }
}
