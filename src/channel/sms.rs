//! Text messages by Twilio's Messages API.

use std::time::Duration;

use secrecy::SecretString;

use crate::message::AccountSid;

/// Who a text is sent by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmsSender {
    /// A number or sender id of ours: Twilio's `From`.
    From(String),
    /// A messaging service (`MG` and 32 hexadecimal digits): Twilio's `MessagingServiceSid`.
    Service(String),
}

/// Settings of the `sms` channel.
#[derive(Clone, Debug)]
pub struct SmsSettings {
    /// Origin of Twilio's API, without a trailing slash.
    pub api_base: String,
    /// The account that sends; part of the path.
    pub account_sid: AccountSid,
    /// HTTP Basic user: the account SID, or an API key's SID.
    pub user: String,
    /// HTTP Basic password: the auth token, or the API key's secret.
    pub password: SecretString,
    /// Who it comes from.
    pub sender: SmsSender,
    /// The longest one attempt may take, connection and answer included.
    pub timeout: Duration,
}
