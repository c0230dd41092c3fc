//! What a back-end has to bring to be put through the suite.

use std::sync::Arc;
use std::time::Duration;

use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueAdmin, QueueSettings};

/// Something that somebody does to a store by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breakage {
    /// In words.
    pub(crate) what: &'static str,
    /// For [`Store::break_by`].
    pub(crate) how: &'static str,
    /// Messages, by number, that are not delivered under their names after that.
    pub(crate) lost: &'static [usize],
    /// Whether what became of those is told by dead letters.
    pub(crate) is_told: bool,
}

/// A store of a test's own with a service that has it open, and the back doors that tests need.
pub(crate) trait Store: Sized {
    /// Its queue.
    type Queue: Queue + QueueAdmin;

    /// Its name in messages.
    const NAME: &'static str;

    /// Whether a service that starts has its predecessor's work in hand back at once. Else it waits for
    /// the leases to run out.
    const RESTART_ENDS_LEASES: bool;

    /// In how many parts it is, each with its share of a rate and of the capacity.
    const PARTS: u32 = 1;

    /// An empty store.
    async fn new(settings: &QueueSettings, clock: &Clock) -> Self;

    /// The queue of the service that has it open.
    fn queue(&self) -> &Arc<Self::Queue>;

    /// Forgets everything and begins anew.
    async fn clear(&mut self, settings: &QueueSettings, clock: &Clock);

    /// Ends the service without a word and starts another on the same store.
    async fn reopen(&mut self, settings: &QueueSettings, clock: &Clock);

    /// Ends whatever holds the data as `kill -9` does, and starts everything again.
    async fn crash(&mut self, settings: &QueueSettings, clock: &Clock);

    /// Lets `by` pass for whatever the store lets expire by a clock that is not the test's.
    fn age(&self, by: Duration);

    /// Makes an entry of the inbound lane that cannot be read: of the message `id`, accepted and not
    /// routed, or beside it. Returns how many pieces of work there are more than before.
    fn put_garbage(&self, id: &str) -> u64;

    /// Removes a structure, as a person at a prompt could.
    fn damage(&self);

    /// What can be broken of a store that holds a message in every state, each in a way of its own.
    fn breakages(&self) -> &'static [Breakage];

    /// Breaks something by a script or a statement of the store's own.
    fn break_by(&self, how: &str);

    /// Whether any record, field or column holds `text`.
    fn keeps(&self, text: &str) -> bool;

    /// Every value of every record, field and column.
    fn values(&self) -> Vec<Vec<u8>>;

    /// Puts `new` in the place of `old`, a value that is there once, as whoever may write to it could.
    fn overwrite(&self, old: &[u8], new: &[u8]);

    /// Messages of which there is a record.
    fn records(&self) -> usize;
}
