//! Sealing at rest: what a store keeps of texts and recipients can be read only with a key of the
//! configuration.
//!
//! # The envelope, version 1
//!
//! | bytes  | what                                                                            |
//! |--------|---------------------------------------------------------------------------------|
//! | 4      | `00 73 62 01`: a mark that nothing unsealed begins with, and the version         |
//! | 1 + n  | length and name of the key                                                      |
//! | 24     | nonce                                                                           |
//! | rest   | ciphertext and tag, XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, RFC 8439)    |
//!
//! Sealed along with it, though not stored in it, is where the value belongs ([`Binding`]): the shard, the
//! message, and what of the message it is. A value that somebody moved to another place does not open.
//!
//! A key of the configuration never seals itself: two keys are derived from it, one for values and one for
//! the names of destinations.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, general_purpose};
use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::message::{Malformed, MessageId};

/// Length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;

/// What every envelope begins with; the last byte is its version.
const MARK: [u8; 4] = [0x00, b's', b'b', VERSION];
const VERSION: u8 = 1;

/// What a sealed label begins with. No label is an address of this scheme.
const TEXT_MARK: &str = "sealed:";

const NONCE_LENGTH: usize = 24;

/// A key in base64, with or without its padding.
const KEY_TEXT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Name of a key: `[A-Za-z0-9._-]{1,32}`. It stands in every envelope, readable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let ok = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if ok { Ok(Self(text.to_owned())) } else { Err(Malformed("a key is named [A-Za-z0-9._-]{1,32}")) }
    }

    /// A name for a key made at `now`, which sorts by that: `k20261124-3f9a`. `chance` tells apart those of
    /// one day.
    pub fn dated(now: Timestamp, chance: [u8; 2]) -> Self {
        let day: String = now.to_string().chars().take("2026-11-24".len()).filter(|c| *c != '-').collect();
        Self(format!("k{day}-{:04x}", u16::from_be_bytes(chance)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One key. What it holds is overwritten when it is dropped; its `Debug` is its name.
pub struct SealingKey {
    id: KeyId,
    values: XChaCha20Poly1305,
    destinations: SecretSlice<u8>,
}

impl SealingKey {
    /// Reads `NAME:KEY`, the key being [`KEY_LENGTH`] bytes in base64.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const EXPECTED: Malformed =
            Malformed("a key is NAME:KEY, 32 bytes in base64 (`smsctl keygen` makes one)");
        let (id, key) = text.split_once(':').ok_or(EXPECTED)?;
        let id = KeyId::parse(id)?;
        // Room for more than a key, so that a longer one is told from what is no base64.
        let mut bytes = Zeroizing::new([0_u8; 2 * KEY_LENGTH]);
        match KEY_TEXT.decode_slice(key, bytes.as_mut_slice()) {
            Ok(KEY_LENGTH) => Ok(Self::new(id, &bytes[..KEY_LENGTH])),
            Ok(_) | Err(base64::DecodeSliceError::OutputSliceTooSmall) => {
                Err(Malformed("a key has exactly 32 bytes (`smsctl keygen` makes one)"))
            }
            Err(_) => Err(EXPECTED),
        }
    }

    fn new(id: KeyId, key: &[u8]) -> Self {
        let values = derive(key, b"sms-broadcaster seal v1");
        let destinations = derive(key, b"sms-broadcaster destinations v1");
        Self {
            id,
            values: XChaCha20Poly1305::new((&*values).into()),
            destinations: SecretSlice::from(destinations.to_vec()),
        }
    }

    /// Writes a key down as [`SealingKey::parse`] reads it.
    pub fn written(id: &KeyId, key: &[u8; KEY_LENGTH]) -> SecretString {
        let encoded = Zeroizing::new(general_purpose::STANDARD.encode(key));
        SecretString::from(format!("{id}:{}", *encoded))
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Whether it is the same key, whatever it is called.
    pub fn is_same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.destinations.expose_secret().ct_eq(other.destinations.expose_secret()).into()
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// A key for one purpose: HMAC-SHA256 of the purpose, which is HKDF's expansion (RFC 5869) for a key that is
/// random already.
fn derive(key: &[u8], purpose: &[u8]) -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(purpose);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Bytes nobody can guess, of the system.
///
/// # Panics
///
/// When the system has none to give, which it does not once it has started.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// What makes two envelopes differ that hold the same. Random: with 24 bytes none comes twice.
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// A fresh one.
    pub fn fresh() -> Self {
        Self(random())
    }

    /// A certain one, for tests: with the same key, two different values under one nonce betray each other.
    pub fn of(bytes: [u8; NONCE_LENGTH]) -> Self {
        Self(bytes)
    }
}

/// What of a message a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The message: text, sender, our number.
    Message,
    /// The recipient of its delivery of this index.
    Recipient(u16),
    /// What people may see of a recipient.
    Label,
}

/// Where a value belongs. It opens there and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The store's partition.
    pub shard: u16,
    /// The message.
    pub message: &'a MessageId,
    /// What of the message it is.
    pub part: Part,
}

impl Binding<'_> {
    /// The associated data: the envelope's readable `head`, then lengths and numbers of a fixed size, then
    /// the id, which goes to the end. No two places share it.
    fn associated_data(self, head: &[u8]) -> Vec<u8> {
        let (part, index) = match self.part {
            Part::Message => (0_u8, 0),
            Part::Recipient(index) => (1, index),
            Part::Label => (2, 0),
        };
        let id = self.message.as_str().as_bytes();
        let mut data = Vec::with_capacity(head.len() + 5 + id.len());
        data.extend_from_slice(head);
        data.extend_from_slice(&self.shard.to_be_bytes());
        data.push(part);
        data.extend_from_slice(&index.to_be_bytes());
        data.extend_from_slice(id);
        data
    }
}

/// Why a stored value cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unopened {
    /// It was sealed with a key that is not here.
    #[error("it is sealed with the key {0}, which is not among the configured ones")]
    NoKey(KeyId),
    /// It was changed, cut, or moved here from another place; or another key has the name of the one
    /// that sealed it.
    #[error("its seal is broken: it was changed, or is not of this place, or another key has this name")]
    Broken,
    /// A newer program sealed it.
    #[error("it was sealed by a newer version of this program")]
    Newer,
    /// It is not sealed, and must be.
    #[error("it is not sealed, as it has to be")]
    Unsealed,
}

impl Unopened {
    /// A word for the history of a letter: `no_key:{name}`, `broken_seal`, `newer_seal` or `unsealed`.
    pub fn code(&self) -> String {
        match self {
            Self::NoKey(id) => format!("no_key:{id}"),
            Self::Broken => "broken_seal".to_owned(),
            Self::Newer => "newer_seal".to_owned(),
            Self::Unsealed => "unsealed".to_owned(),
        }
    }
}

/// The keys of a configuration: the first seals, all open. Without any, values are kept as they are. Clones
/// share them; its `Debug` is their names.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<[SealingKey]>,
    refuses_unsealed: bool,
}

impl Keyring {
    /// A keyring of `keys`, the sealing one first. With `accept_unsealed`, what was stored before there were
    /// keys is read as well.
    pub fn new(keys: Vec<SealingKey>, accept_unsealed: bool) -> Self {
        let refuses_unsealed = !accept_unsealed && !keys.is_empty();
        Self { keys: keys.into(), refuses_unsealed }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Their names, the sealing one first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(SealingKey::id)
    }

    /// Whether what was stored before there were keys is read as well.
    pub fn accepts_unsealed(&self) -> bool {
        !self.refuses_unsealed
    }

    /// A secret for the names of destinations, of the sealing key; `None` without keys.
    pub fn destination_secret(&self) -> Option<&[u8]> {
        self.keys.first().map(|key| key.destinations.expose_secret())
    }

    /// A value as the store is to keep it: sealed with the first key; as it is when there is none.
    pub fn seal(&self, binding: Binding<'_>, nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        let Some(key) = self.keys.first() else { return plain.to_vec() };
        let id = key.id.as_str().as_bytes();
        let mut envelope = MARK.to_vec();
        envelope.push(u8::try_from(id.len()).expect("a key's name is short"));
        envelope.extend_from_slice(id);
        let aad = binding.associated_data(&envelope);
        let sealed = key.values.encrypt(&XNonce::from(nonce.0), Payload { msg: plain, aad: &aad });
        envelope.extend_from_slice(&nonce.0);
        envelope.extend(sealed.expect("no value comes near the cipher's limit of 256 GiB"));
        envelope
    }

    /// The value that the store has kept as `stored`; borrowed when it was not sealed.
    pub fn open<'s>(&self, binding: Binding<'_>, stored: &'s [u8]) -> Result<Cow<'s, [u8]>, Unopened> {
        if !is_sealed(stored) {
            return self.unsealed(stored);
        }
        let version = *stored.get(MARK.len() - 1).ok_or(Unopened::Broken)?;
        if version != VERSION {
            return Err(if version > VERSION { Unopened::Newer } else { Unopened::Broken });
        }
        let id_length = usize::from(*stored.get(MARK.len()).ok_or(Unopened::Broken)?);
        let (head, rest) = stored.split_at_checked(MARK.len() + 1 + id_length).ok_or(Unopened::Broken)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(Unopened::Broken)?;
        let id = str::from_utf8(&head[MARK.len() + 1..]).ok().and_then(|id| KeyId::parse(id).ok());
        let id = id.ok_or(Unopened::Broken)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Unopened::NoKey(id))?;
        let aad = binding.associated_data(head);
        let plain = key.values.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: &aad });
        plain.map(Cow::Owned).map_err(|_| Unopened::Broken)
    }

    /// A value without an envelope, if it may be one that was stored before there were keys: those are JSON
    /// objects, or gone. Everything else was sealed once, until somebody damaged the mark.
    fn unsealed<'s>(&self, stored: &'s [u8]) -> Result<Cow<'s, [u8]>, Unopened> {
        if self.refuses_unsealed && !stored.is_empty() {
            return Err(Unopened::Unsealed);
        }
        let may_be_old = self.is_empty() || matches!(stored.first(), None | Some(b'{'));
        if may_be_old { Ok(Cow::Borrowed(stored)) } else { Err(Unopened::Broken) }
    }

    /// [`Keyring::seal`] for a value that is text, and stays text.
    pub fn seal_text(&self, binding: Binding<'_>, nonce: Nonce, plain: &str) -> String {
        if self.is_empty() {
            return plain.to_owned();
        }
        let envelope = self.seal(binding, nonce, plain.as_bytes());
        format!("{TEXT_MARK}{}", STANDARD_NO_PAD.encode(envelope))
    }

    /// [`Keyring::open`] for what [`Keyring::seal_text`] made.
    pub fn open_text<'s>(&self, binding: Binding<'_>, stored: &'s str) -> Result<Cow<'s, str>, Unopened> {
        let Some(encoded) = stored.strip_prefix(TEXT_MARK) else {
            return if self.refuses_unsealed { Err(Unopened::Unsealed) } else { Ok(Cow::Borrowed(stored)) };
        };
        let envelope = STANDARD_NO_PAD.decode(encoded).map_err(|_| Unopened::Broken)?;
        if !is_sealed(&envelope) {
            return Err(Unopened::Broken);
        }
        let plain = self.open(binding, &envelope)?.into_owned();
        String::from_utf8(plain).map(Cow::Owned).map_err(|_| Unopened::Broken)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids().map(KeyId::as_str)).finish()
    }
}

/// Whether a stored value is in an envelope, of whatever version.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(&MARK[..MARK.len() - 1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &[u8] = b"your code is 493817";

    fn id(number: u32) -> MessageId {
        MessageId::of_source("test", &number.to_string()).unwrap()
    }

    fn key(name: &str, fill: u8) -> SealingKey {
        SealingKey::new(KeyId::parse(name).unwrap(), &[fill; KEY_LENGTH])
    }

    fn ring(names: &[(&str, u8)]) -> Keyring {
        Keyring::new(names.iter().map(|(name, fill)| key(name, *fill)).collect(), true)
    }

    fn of(message: &MessageId) -> Binding<'_> {
        Binding { shard: 0, message, part: Part::Message }
    }

    #[test]
    fn what_was_sealed_opens_and_shows_nothing_of_itself() {
        let (keys, id) = (ring(&[("k1", 1)]), id(1));
        let sealed = keys.seal(of(&id), Nonce::fresh(), PLAIN);
        assert!(is_sealed(&sealed));
        assert!(!sealed.windows(6).any(|bytes| bytes == b"493817"));
        assert_eq!(keys.open(of(&id), &sealed).unwrap(), PLAIN);
        assert_ne!(sealed, keys.seal(of(&id), Nonce::fresh(), PLAIN), "every nonce is another");
    }

    #[test]
    fn an_envelope_of_version_1_is_read_for_ever() {
        // Fixed: a program that cannot read this has lost what its users have stored.
        let known = "0073620102 6b31 000102030405060708090a0b0c0d0e0f1011121314151617";
        let bytes = |hex: &str| -> Vec<u8> {
            let digits: String = hex.split_whitespace().collect();
            (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                .collect()
        };
        let nonce: [u8; NONCE_LENGTH] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let keys = ring(&[("k1", 7)]);
        let id = MessageId::parse("SM0123456789abcdef0123456789abcdef").unwrap();
        let binding = Binding { shard: 3, message: &id, part: Part::Recipient(2) };
        let sealed = keys.seal(binding, Nonce::of(nonce), b"+12025550147");
        assert_eq!(sealed[..31], bytes(known));
        assert_eq!(sealed[31..], bytes(KNOWN_CIPHERTEXT), "{:02x?}", &sealed[31..]);
    }

    /// Made by another implementation (libsodium).
    const KNOWN_CIPHERTEXT: &str = "f372f12650e8cab9af0f4fed 1df0d46c617c8d62c0572e4860066431";

    #[test]
    fn nothing_opens_in_another_place() {
        let (keys, one, other) = (ring(&[("k1", 1)]), id(1), id(11));
        let parts =
            [Part::Message, Part::Recipient(0), Part::Recipient(1), Part::Recipient(256), Part::Label];
        let mut places = Vec::new();
        for shard in [0, 1, 256] {
            for message in [&one, &other] {
                places.extend(parts.map(|part| Binding { shard, message, part }));
            }
        }
        for (at, sealed_at) in places.iter().enumerate() {
            let sealed = keys.seal(*sealed_at, Nonce::fresh(), PLAIN);
            for (opened_at, place) in places.iter().enumerate() {
                let opened = keys.open(*place, &sealed);
                assert_eq!(opened.is_ok(), at == opened_at, "{sealed_at:?} {place:?}");
                if at != opened_at {
                    assert_eq!(opened, Err(Unopened::Broken));
                }
            }
        }
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let id = id(1);
        let old = ring(&[("k1", 1)]).seal(of(&id), Nonce::fresh(), PLAIN);
        let both = ring(&[("k2", 2), ("k1", 1)]);
        let new = both.seal(of(&id), Nonce::fresh(), PLAIN);
        assert_eq!(both.open(of(&id), &old).unwrap(), PLAIN);
        assert_eq!(ring(&[("k2", 2)]).open(of(&id), &new).unwrap(), PLAIN);
        let missing = |name| Err(Unopened::NoKey(KeyId::parse(name).unwrap()));
        assert_eq!(ring(&[("k2", 2)]).open(of(&id), &old), missing("k1"));
        assert_eq!(ring(&[]).open(of(&id), &new), missing("k2"));
        assert_eq!(ring(&[("k1", 9)]).open(of(&id), &old), Err(Unopened::Broken), "another key of that name");
    }

    #[test]
    fn what_is_not_sealed_is_read_unless_it_must_be_sealed() {
        let id = id(1);
        let old = br#"{"v":1}"#.as_slice();
        for keys in [ring(&[]), ring(&[("k1", 1)]), Keyring::new(Vec::new(), false)] {
            assert!(keys.accepts_unsealed());
            assert_eq!(keys.open(of(&id), old).unwrap(), old);
            assert_eq!(keys.open(of(&id), b"").unwrap(), b"".as_slice());
            assert_eq!(keys.open_text(of(&id), "+1****2222").unwrap(), "+1****2222");
        }
        let strict = Keyring::new(vec![key("k1", 1)], false);
        assert_eq!(strict.open(of(&id), b"").unwrap(), b"".as_slice(), "gone is gone");
        assert_eq!(strict.open(of(&id), old), Err(Unopened::Unsealed));
        assert_eq!(strict.open_text(of(&id), "+1****2222"), Err(Unopened::Unsealed));
        assert_eq!(ring(&[]).seal(of(&id), Nonce::fresh(), PLAIN), PLAIN);
    }

    #[test]
    fn other_versions_and_stumps_are_told_apart() {
        let (keys, id) = (ring(&[("k1", 1)]), id(1));
        let sealed = keys.seal(of(&id), Nonce::fresh(), PLAIN);
        let version = |version| [&sealed[..3], &[version], &sealed[4..]].concat();
        assert_eq!(keys.open(of(&id), &version(2)), Err(Unopened::Newer));
        assert_eq!(keys.open(of(&id), &version(0)), Err(Unopened::Broken));
        for length in 3..sealed.len() {
            assert_eq!(keys.open(of(&id), &sealed[..length]), Err(Unopened::Broken), "{length}");
        }
    }

    #[test]
    fn a_label_stays_text() {
        let (keys, id) = (ring(&[("k1", 1)]), id(1));
        let place = Binding { part: Part::Label, ..of(&id) };
        for label in ["+1******2222", "hooks.slack.com/… #mfa", ""] {
            let sealed = keys.seal_text(place, Nonce::fresh(), label);
            assert!(sealed.bytes().all(|b| b.is_ascii_graphic() && b != b'|'), "{sealed}");
            assert_eq!(keys.open_text(place, &sealed).unwrap(), label);
            assert!(ring(&[]).open_text(place, &sealed).is_err());
        }
        for broken in ["sealed:", "sealed:AHNi", "sealed:!", "sealed:aGVsbG8"] {
            assert_eq!(keys.open_text(place, broken), Err(Unopened::Broken), "{broken}");
        }
    }

    #[test]
    fn a_written_key_reads_back_and_prints_its_name_alone() {
        let bytes: [u8; KEY_LENGTH] = random();
        let line = SealingKey::written(&KeyId::parse("k2026.11").unwrap(), &bytes);
        let line = line.expose_secret();
        for text in [line, line.trim_end_matches('=')] {
            let key = SealingKey::parse(text).unwrap();
            assert_eq!(key.id().as_str(), "k2026.11");
            assert_eq!(format!("{key:?}"), "SealingKey(k2026.11)");
            assert_eq!(format!("{:?}", Keyring::new(vec![key], true)), "{\"k2026.11\"}");
        }
        let same = SealingKey::parse(&line.replace("k2026.11", "other")).unwrap();
        assert!(same.is_same_as(&SealingKey::parse(line).unwrap()));
        assert!(!same.is_same_as(&key("other", 1)));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let right = general_purpose::STANDARD.encode([5; KEY_LENGTH]);
        for (bad, why) in [
            (String::new(), "NAME:KEY"),
            (right.clone(), "NAME:KEY"),
            (format!(":{right}"), "named"),
            (format!("k 1:{right}"), "named"),
            (format!("{}:{right}", "k".repeat(33)), "named"),
            ("k1:".to_owned(), "exactly 32"),
            ("k1:c2hvcnQ=".to_owned(), "exactly 32"),
            (format!("k1:{}", general_purpose::STANDARD.encode([5; 33])), "exactly 32"),
            (format!("k1:{}", general_purpose::STANDARD.encode([5; 500])), "exactly 32"),
            (format!("k1:{}!", &right[..42]), "NAME:KEY"),
            (format!("k1: {right}"), "NAME:KEY"),
        ] {
            let Malformed(told) = SealingKey::parse(&bad).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
    }

    #[test]
    fn a_dated_name_is_a_name_that_sorts_by_its_day() {
        let name = KeyId::dated(Timestamp::from_millis(1_795_485_831_000), [0x3f, 0x9a]);
        assert_eq!(name.as_str(), "k20261124-3f9a");
        assert_eq!(KeyId::parse(name.as_str()).as_ref(), Ok(&name));
        assert_ne!(name, KeyId::dated(Timestamp::from_millis(1_795_485_831_000), [0x3f, 0x9b]));
    }

    #[test]
    fn every_key_names_destinations_its_own_way() {
        assert_eq!(ring(&[]).destination_secret(), None);
        let (one, other) = (ring(&[("k1", 1), ("k2", 2)]), ring(&[("k2", 2), ("k1", 1)]));
        assert_ne!(one.destination_secret(), other.destination_secret());
        assert_eq!(one.destination_secret(), ring(&[("x", 1)]).destination_secret());
    }

    proptest! {
        #[test]
        fn any_value_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..2_000), number in any::<u32>()) {
            let (keys, id) = (ring(&[("k1", 1)]), id(number));
            let sealed = keys.seal(of(&id), Nonce::fresh(), &plain);
            prop_assert_eq!(keys.open(of(&id), &sealed).unwrap().into_owned(), plain);
        }

        #[test]
        fn one_changed_bit_anywhere_and_nothing_opens(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
            let (keys, id) = (ring(&[("k1", 1)]), id(1));
            let mut sealed = keys.seal(of(&id), Nonce::fresh(), PLAIN);
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            prop_assert!(keys.open(of(&id), &sealed).is_err());
        }

        #[test]
        fn rubbish_never_opens_and_never_panics(rubbish in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (keys, id) = (ring(&[("k1", 1)]), id(1));
            let marked = [MARK.as_slice(), &rubbish].concat();
            prop_assert!(keys.open(of(&id), &marked).is_err());
            let text = String::from_utf8_lossy(&rubbish);
            let label = ["sealed:", &text].concat();
            prop_assert!(keys.open_text(of(&id), &label).is_err());
            let _ = SealingKey::parse(&text);
        }
    }
}
