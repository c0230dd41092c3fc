//! Twilio's inbound message webhook: is it Twilio's, and what does it say.
//!
//! * `public_url` — the URL Twilio called, in every spelling it may have signed
//! * `form` — the fields of a request, as bytes
//! * `signature` — what is signed, and how it is compared
//! * `webhook` — the three together: from a raw request to a verified message
//!
//! The scheme is the one of Twilio's "Security: validating requests", with an account's auth token and
//! HMAC-SHA1. The `X-Twilio-Webhooks-Signature-Settings` header of the newer shared keys is not looked
//! at: it is not signed itself, so it must not choose the key or the algorithm.

mod form;
mod public_url;
mod signature;
mod webhook;

pub use public_url::PublicUrl;
pub use signature::sign;
pub use webhook::{MAX_TOKENS, Request, SOURCE, TwilioSettings, TwilioSource};
