//! The fields of a form body or of a query: `application/x-www-form-urlencoded`, read once.
//!
//! Names and values are bytes. What is signed is what was sent, percent-decoded and nothing else: to
//! read it as text first would change what is no UTF-8, and with it the signature.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Fields in the order of the wire, percent-decoded, a `+` read as a blank.
pub(super) struct Form<'a>(Vec<Field<'a>>);

type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// What a form says under one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'f> {
    /// Nothing.
    Nothing,
    /// One thing, however often.
    One(&'f [u8]),
    /// Two things that differ.
    Contradiction,
}

impl<'a> Form<'a> {
    /// Reads any bytes. A field without `=` has an empty value; an empty one between two `&` is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let fields = bytes.split(|&byte| byte == b'&').filter(|field| !field.is_empty());
        Self(fields.map(parse_field).collect())
    }

    /// A form without fields.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Names and values, in the order of the wire.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What is said under `name`.
    pub(super) fn said(&self, name: &str) -> Said<'_> {
        let mut values = self.fields().filter(|(have, _)| *have == name.as_bytes()).map(|(_, value)| value);
        match values.next() {
            None => Said::Nothing,
            Some(first) if values.all(|value| value == first) => Said::One(first),
            Some(_) => Said::Contradiction,
        }
    }
}

fn parse_field(field: &[u8]) -> Field<'_> {
    match field.iter().position(|&byte| byte == b'=') {
        Some(at) => (decode(&field[..at]), decode(&field[at + 1..])),
        None => (decode(field), Cow::Borrowed(&[])),
    }
}

fn decode(escaped: &[u8]) -> Cow<'_, [u8]> {
    if !escaped.contains(&b'+') {
        return percent_decode(escaped).into();
    }
    let blanks: Vec<u8> = escaped.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&blanks).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Form::parse(text).fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn fields_are_decoded_and_kept_in_order() {
        let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        for (text, expected) in [
            (&b""[..], vec![]),
            (b"&&", vec![]),
            (b"a", vec![pair(b"a", b"")]),
            (b"a=", vec![pair(b"a", b"")]),
            (b"=b", vec![pair(b"", b"b")]),
            (b"b=1&a=2&b=1", vec![pair(b"b", b"1"), pair(b"a", b"2"), pair(b"b", b"1")]),
            (b"a=b=c", vec![pair(b"a", b"b=c")]),
            (b"a+b=+c+&%2B=%20%0A", vec![pair(b"a b", b" c "), pair(b"+", b" \n")]),
            (b"a=%E2%9C%93", vec![pair(b"a", "✓".as_bytes())]),
            (b"a=\xe2\x9c\x93", vec![pair(b"a", "✓".as_bytes())]),
            (b"a=%FF%fe\xfd", vec![pair(b"a", b"\xff\xfe\xfd")]),
            (b"a=%&b=%4&c=%zz", vec![pair(b"a", b"%"), pair(b"b", b"%4"), pair(b"c", b"%zz")]),
        ] {
            assert_eq!(fields(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_name_says_nothing_one_thing_or_contradicts_itself() {
        let form = Form::parse(b"a=1&b=&b=2&c=%33&c=3");
        assert_eq!(form.said("a"), Said::One(b"1"));
        assert_eq!(form.said("b"), Said::Contradiction);
        assert_eq!(form.said("c"), Said::One(b"3"));
        assert_eq!(form.said("A"), Said::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form(bytes: Vec<u8>) {
            let form = Form::parse(&bytes);
            prop_assert!(form.fields().count() <= bytes.len());
        }

        #[test]
        fn what_a_careful_client_writes_is_read_back(written in prop::collection::vec((any::<String>(), any::<String>()), 0..8)) {
            let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&written).finish();
            let expected: Vec<_> =
                written.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
            prop_assert_eq!(fields(text.as_bytes()), expected);
        }
    }
}
