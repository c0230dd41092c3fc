//! The operator's side: what `smsctl` can do, apart from its flags.
//!
//! * `letters` — finding, requeueing and forgetting dead letters, one by one or all that pass a filter
//! * `preview` — who would get a text, and how it would read
//! * `webhook` — a test message, signed and posted as Twilio does it
//! * `doctor` — whether the store holds what it must, and putting it right
//! * `advice` — what a configuration may have and better had not
//! * `digest` — what is worked out from the store's answers
//! * `filters` — the words of the command line
//! * [`json`] and [`text`] — the same answers for programs and for people
//! * `style`, `table`, `readable` — how people get them
//!
//! Nothing here shows a whole phone number, webhook or text, except [`text::letter`] and
//! [`json::letter`] when they are told to reveal, and the previews, which repeat the operator's own text.

mod advice;
mod digest;
mod doctor;
mod filters;
pub mod json;
mod letters;
mod preview;
mod readable;
mod style;
mod table;
pub mod text;
mod webhook;

pub use advice::about_templates;
pub use digest::{DeliveryTotals, MessageState, Totals};
pub use doctor::{Examination, examine};
pub use filters::{parse_cause, parse_channel, parse_deadline, parse_since};
pub use letters::{Interrupted, Purged, Returned, Selection, purge, requeue, would_purge, would_requeue};
pub use preview::{PreviewedDelivery, RoutePreview, preview};
pub use style::Style;
pub use webhook::{NotTaken, TestMessage, parse_webhook_url, post, random_message_id, webhook_at};
