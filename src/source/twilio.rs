//! Twilio's inbound message webhook: signature and form.

use secrecy::SecretString;

use crate::message::AccountSid;

/// What is needed to tell Twilio's requests from others.
#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// Origin (and path prefix) that Twilio calls, without a trailing slash; may carry user and password.
    pub public_url: url::Url,
    /// The account whose messages are taken.
    pub account_sid: AccountSid,
    /// Every one of these may have signed.
    pub auth_tokens: Vec<SecretString>,
}
