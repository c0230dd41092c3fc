//! A back-end behind the seal, on the bench: the same promises, and nothing readable below.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::QueueSettings;
use sms_broadcaster::queue::sealed::Sealed;
use sms_broadcaster::seal::{Binding, KeyId, Keyring, Nonce, Part, SealingKey, is_sealed};

use super::bench::id;
use super::harness::{Breakage, Store};

/// The back-end `S`, with keys.
pub(crate) struct UnderSeal<S: Store> {
    // Before the store: who opens a file anew must have let go of it.
    queue: Option<Arc<Sealed<S::Queue>>>,
    store: S,
    keys: Keyring,
}

const SHARD: u16 = 3;

/// Places where a value found in the store is looked for: more than any test uses that asks.
const MESSAGES: usize = 16;
const RECIPIENTS: u16 = 16;

impl<S: Store> UnderSeal<S> {
    fn seal(&mut self) {
        self.queue = Some(Arc::new(Sealed::new(Arc::clone(self.store.queue()), self.keys.clone(), SHARD)));
    }

    /// Starts the service anew with other keys.
    pub(crate) fn change_keys(&mut self, names: &[&str], accept_unsealed: bool) {
        self.keys = Keyring::new(names.iter().map(|name| key(name)).collect(), accept_unsealed);
        self.seal();
    }

    /// The one value that opens in this place.
    pub(crate) fn sealed_of(&self, message: &MessageId, part: Part) -> Vec<u8> {
        let place = Binding { shard: SHARD, message, part };
        let mut found = self.store.values();
        found.retain(|value| is_sealed(value) && self.keys.open(place, value).is_ok());
        assert_eq!(found.len(), 1, "{message} {part:?}");
        found.remove(0)
    }

    fn opened(&self, value: &[u8]) -> Option<Vec<u8>> {
        let parts: Vec<Part> =
            (0..=RECIPIENTS).map(Part::Recipient).chain([Part::Message, Part::Label]).collect();
        (0..MESSAGES).map(id).find_map(|message| {
            parts.iter().find_map(|part| {
                let place = Binding { shard: SHARD, message: &message, part: *part };
                self.keys.open(place, value).ok().map(|plain| plain.into_owned())
            })
        })
    }
}

/// The key of this name; equal names are equal keys.
fn key(name: &str) -> SealingKey {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let written = SealingKey::written(&KeyId::parse(name).expect("a name"), &bytes);
    SealingKey::parse(written.expose_secret()).expect("a key")
}

impl<S: Store> Store for UnderSeal<S> {
    type Queue = Sealed<S::Queue>;
    const NAME: &'static str = S::NAME;
    const RESTART_ENDS_LEASES: bool = S::RESTART_ENDS_LEASES;
    const PARTS: u32 = S::PARTS;

    async fn new(settings: &QueueSettings, clock: &Clock) -> Self {
        let keys = Keyring::new(vec![key("new"), key("old")], false);
        let mut sealed = Self { queue: None, store: S::new(settings, clock).await, keys };
        sealed.seal();
        sealed
    }

    fn queue(&self) -> &Arc<Self::Queue> {
        self.queue.as_ref().expect("open between two calls")
    }

    async fn clear(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.queue = None;
        self.store.clear(settings, clock).await;
        self.seal();
    }

    async fn reopen(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.queue = None;
        self.store.reopen(settings, clock).await;
        self.seal();
    }

    async fn crash(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.queue = None;
        self.store.crash(settings, clock).await;
        self.seal();
    }

    fn age(&self, by: Duration) {
        self.store.age(by);
    }

    fn put_garbage(&self, id: &str) -> u64 {
        self.store.put_garbage(id)
    }

    fn damage(&self) {
        self.store.damage();
    }

    fn breakages(&self) -> &'static [Breakage] {
        self.store.breakages()
    }

    fn break_by(&self, how: &str) {
        self.store.break_by(how);
    }

    /// Whether `text` is there, sealed. Readable it must never be.
    fn keeps(&self, text: &str) -> bool {
        assert!(!self.store.keeps(text), "{text:?} can be read in the store");
        // Only what has its length is worth all those trials.
        let place = Binding { shard: SHARD, message: &id(0), part: Part::Message };
        let length = self.keys.seal(place, Nonce::fresh(), text.as_bytes()).len();
        let values = self.store.values().into_iter();
        let sealed = values.filter(|value| value.len() == length && is_sealed(value));
        sealed.filter_map(|value| self.opened(&value)).any(|plain| plain == text.as_bytes())
    }

    fn values(&self) -> Vec<Vec<u8>> {
        self.store.values()
    }

    fn overwrite(&self, old: &[u8], new: &[u8]) {
        self.store.overwrite(old, new);
    }

    fn records(&self) -> usize {
        self.store.records()
    }
}
