//! Channels: the port ([`contract`]) and one file for each way out.

pub mod contract;
pub mod slack;
pub mod sms;
