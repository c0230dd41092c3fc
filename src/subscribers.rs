//! Subscribers: who gets a message.
