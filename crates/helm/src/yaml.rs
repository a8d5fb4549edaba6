//! Reads YAML that a stranger wrote: an alias stands for all that its anchor has, and a few kilobytes of them for gigabytes.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What a value costs besides its text, in bytes: about what it takes in memory.
const NODE: usize = 64;
/// The most that one byte of text can cost without aliases: two bytes (`a,` in a mapping) make a key and a value.
const PER_BYTE: usize = NODE + 1;
/// What aliases may add.
const ALIASES: usize = 4 << 20;

/// The documents of a YAML text, as JSON, with merge keys (`<<`) merged as kubectl, Helm and kustomize do.
///
/// # Errors
/// What makes the text unreadable: no YAML, a key that is no text, a tag that is not known, or aliases that stand for far
/// more than the text has.
pub fn values(text: &str) -> Result<Vec<Value>, serde_yaml_ng::Error> {
    let budget = Budget(Cell::new(text.len().saturating_mul(PER_BYTE).saturating_add(ALIASES)));
    serde_yaml_ng::Deserializer::from_str(text).map(|document| Node(&budget).deserialize(document)).collect()
}

struct Budget(Cell<usize>);

impl Budget {
    fn take<E: Error>(&self, text: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(NODE.saturating_add(text));
        self.0.set(left.ok_or_else(|| E::custom("aliases stand for too much"))?);
        Ok(())
    }
}

/// One value, paid for before it is kept.
#[derive(Clone, Copy)]
struct Node<'b>(&'b Budget);

impl Node<'_> {
    fn keep<E: Error>(self, text: usize, value: Value) -> Result<Value, E> {
        self.0.take(text)?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has, too")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.keep(0, Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.keep(0, Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.keep(0, value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.keep(0, value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.keep(0, value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.keep(0, value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.keep(value.len(), value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.0.take(0)?;
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            found.push(item);
        }
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        self.0.take(0)?;
        let mut found = Map::new();
        let mut merged = None;
        while let Some(key) = fields.next_key::<String>()? {
            self.0.take(key.len())?;
            let value = fields.next_value_seed(self)?;
            if key == "<<" {
                merged = Some(value);
            } else {
                found.insert(key, value);
            }
        }
        if let Some(merged) = merged {
            merge(&mut found, merged).map_err(A::Error::custom)?;
        }
        Ok(Value::Object(found))
    }
}

/// What is written out wins over what is merged, and what is merged first over what comes later.
fn merge(into: &mut Map<String, Value>, merged: Value) -> Result<(), &'static str> {
    match merged {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(several) => several.into_iter().try_for_each(|one| merge(into, one)),
        _ => Err("a merge key stands for something that is no mapping"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    /// A list, and one that names it so often.
    fn bomb(items: usize, aliases: usize) -> String {
        format!("a: &a [{}]\nb: [{}]\n", vec!["0"; items].join(","), vec!["*a"; aliases].join(","))
    }

    #[test]
    fn a_few_kilobytes_of_aliases_do_not_become_gigabytes() {
        let text = bomb(10_000, 5_000);
        assert!(text.len() < 40_000);
        let error = values(&text).unwrap_err().to_string();
        assert!(error.contains("aliases stand for too much"), "{error}");
        assert_eq!(values(&bomb(10, 20)).unwrap()[0]["b"].as_array().unwrap().len(), 20);
    }

    /// A mapping of so many keys, as short as they can be.
    fn keys(count: usize) -> String {
        let keys: Vec<String> = (0..count).map(|at| format!("{at:x}")).collect();
        format!("{{{}}}", keys.join(","))
    }

    #[test]
    fn what_has_no_aliases_is_never_too_much() {
        for text in [
            "-\n".repeat(500_000),
            "[".to_owned() + &"0,".repeat(500_000) + "]",
            "a: b\n---\n".repeat(100_000),
            keys(200_000),
        ] {
            assert!(values(&text).is_ok(), "{} bytes of {:?}", text.len(), &text[..4]);
        }
    }

    #[test]
    fn it_reads_what_json_has_as_the_plain_reader_does() {
        let texts = [
            "a: 1\nb: -1\nc: 1.5\nd: true\ne: null\nf: text\ng: [1, {h: 2}]\n1: one\ntrue: yes\n",
            "a: .nan\nb: .inf\nc: 0x10\nd: '1'\ne: |\n  text\n",
            "a: &x {b: 1}\nc: *x\n",
            "",
            "---\n---\na: 1\n",
            "? [1]\n: a\n",
            "a: !tag 1\n",
            "a: !!binary aGVsbG8=\n",
            "a: [",
            "a: 18446744073709551616\n",
        ];
        for text in texts {
            let plain: Result<Vec<Value>, _> =
                serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize).collect();
            assert_eq!(values(text).ok(), plain.ok(), "{text:?}");
        }
    }

    #[test]
    fn merge_keys_are_merged_and_what_is_written_out_wins() {
        let text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\nw: {<<: *y}\n";
        let found = values(text).unwrap();
        assert_eq!(found[0]["z"], json!({"a": 0, "b": 1, "c": 2}));
        assert_eq!(found[0]["w"], json!({"b": 2, "c": 2}));
        assert!(values("{<<: 1}").is_err());
    }
}
