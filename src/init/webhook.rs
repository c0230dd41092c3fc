//! A Slack webhook as somebody gives it: the address itself, or where the address is kept.

use crate::delivery::WebhookUrl;
use crate::message::Malformed;
use crate::subscribers::parse_webhook;

/// A webhook that the files are to refer to.
#[derive(Debug, PartialEq)]
pub(super) enum Webhook {
    /// The address, which is never written: a variable will hold it.
    Url(WebhookUrl),
    /// What stands between the braces of `${…}`: a variable's name, or `file:` and a path.
    Reference(String),
}

impl Webhook {
    /// Reads an http or https URL, `${NAME}` or `${file:/path}`.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let Some(reference) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return parse_webhook(text).map(Self::Url);
        };
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = !reference.is_empty() && reference.chars().all(of_name);
        let is_path = |path: &str| !path.is_empty() && !path.contains(['"', '\\', '{', '}', '\n']);
        if is_name || reference.strip_prefix("file:").is_some_and(is_path) {
            Ok(Self::Reference(reference.to_owned()))
        } else {
            Err(Malformed("a reference is ${NAME} or ${file:/path}"))
        }
    }
}
