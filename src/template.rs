//! Templates: from a message to the text a channel sends.
