//! Channels: the port ([`contract`]) and one file for each way out.

pub mod contract;
pub mod http;
pub mod segments;
pub mod slack;
pub mod sms;
pub mod twilio_codes;
