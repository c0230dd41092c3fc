//! `${NAME}` and `${file:…}` inside strings: what must not stand in the file itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

/// Where `${NAME}` is looked up: a name in, its value out.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// More than this in a `${file:…}` is not a secret but a mistake.
const LARGEST_FILE: u64 = 64 * 1024;

/// A string after its references were put in.
pub(super) struct Resolved {
    /// The text.
    pub(super) value: Zeroizing<String>,
    /// The references, as written, for messages.
    pub(super) references: Vec<String>,
}

/// Puts in what the references of `text` stand for. `$${` is a literal `${`; what a reference brings is
/// not looked at again. Every failing reference is one message.
pub(super) fn resolve(text: &str, folder: &Path, env: &Environment<'_>) -> Result<Resolved, Vec<String>> {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut references = Vec::new();
    let mut failures = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            append(&mut value, &rest[..at - 1]);
            append(&mut value, "${");
            rest = &rest[at + 2..];
            continue;
        }
        append(&mut value, &rest[..at]);
        let Some(length) = rest[at + 2..].find('}') else {
            failures.push("a reference `${` has no closing `}`; write `$${` for a plain `${`".to_owned());
            rest = "";
            break;
        };
        let inner = &rest[at + 2..at + 2 + length];
        match look_up(inner, folder, env) {
            Ok(found) => {
                append(&mut value, &found);
                references.push(format!("${{{inner}}}"));
            }
            Err(message) => failures.push(message),
        }
        rest = &rest[at + 3 + length..];
    }
    append(&mut value, rest);
    if failures.is_empty() { Ok(Resolved { value, references }) } else { Err(failures) }
}

/// Adds to a text that may hold a secret; where it has to grow, no copy of it is left behind.
fn append(value: &mut Zeroizing<String>, more: &str) {
    if value.capacity() - value.len() < more.len() {
        let mut larger = Zeroizing::new(String::with_capacity(2 * (value.len() + more.len())));
        larger.push_str(value);
        *value = larger;
    }
    value.push_str(more);
}

fn look_up(inner: &str, folder: &Path, env: &Environment<'_>) -> Result<Zeroizing<String>, String> {
    if let Some(path) = inner.strip_prefix("file:") {
        return read_secret_file(path, folder);
    }
    let starts_well = inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        // Not repeated: what stands here by mistake may be the secret itself.
        return Err("a reference is `${NAME}` or `${file:PATH}`; write `$${` for a plain `${`".to_owned());
    }
    env(inner).map(Zeroizing::new).ok_or_else(|| format!("the environment variable `{inner}` is not set"))
}

fn read_secret_file(path: &str, folder: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.escape_debug();
    if path.is_empty() {
        return Err("`${file:}` names no file".to_owned());
    }
    let full = folder.join(path);
    // A pipe or device could block or never end.
    let metadata =
        std::fs::metadata(&full).map_err(|error| format!("cannot read `{shown}`: {}", error.kind()))?;
    if !metadata.is_file() {
        return Err(format!("cannot read `{shown}`: not a regular file"));
    }
    // Room for all of it: a list that grows leaves copies behind.
    let room = usize::try_from(metadata.len().min(LARGEST_FILE)).unwrap_or(0) + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    File::open(&full)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read `{shown}`: {}", error.kind()))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("cannot read `{shown}`: larger than 64KiB"));
    }
    let text = str::from_utf8(&bytes).map_err(|_| format!("cannot read `{shown}`: not UTF-8 text"))?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Vec<String>> {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        resolve(text, Path::new("/nowhere"), &env).map(|resolved| resolved.value.to_string())
    }

    #[test]
    fn references_are_put_in_and_not_looked_at_again() {
        assert_eq!(with("x${A}y${A}").unwrap(), "xoneyone");
        assert_eq!(with("${NESTED}").unwrap(), "${A}");
    }

    #[test]
    fn a_doubled_dollar_is_a_literal_one() {
        assert_eq!(with("$${A} costs 5$ or $A or {A}").unwrap(), "${A} costs 5$ or $A or {A}");
        assert_eq!(with("^a$").unwrap(), "^a$");
        assert_eq!(with("$${").unwrap(), "${");
    }

    #[test]
    fn every_failing_reference_is_named() {
        assert_eq!(with("${B}${C}").unwrap_err().len(), 2);
        for bad in ["${", "${}", "${A", "${1}", "${A B}", "${a-b}", "${file:}", "${file:gone}", "${file:/}"] {
            assert_eq!(with(bad).unwrap_err().len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_file_loses_one_trailing_newline_and_is_sought_beside_the_document() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s3\n\n").unwrap();
        std::fs::write(folder.path().join("windows"), "s4\r\n").unwrap();
        std::fs::write(folder.path().join("binary"), b"\xff").unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 70_000]).unwrap();
        let read =
            |text: &str| resolve(text, folder.path(), &|_| None).map(|resolved| resolved.value.to_string());
        assert_eq!(read("${file:secret}").unwrap(), "s3\n");
        assert_eq!(read("<${file:windows}>").unwrap(), "<s4>");
        assert!(read("${file:binary}").unwrap_err()[0].contains("UTF-8"));
        assert!(read("${file:large}").unwrap_err()[0].contains("64KiB"));
    }
}
