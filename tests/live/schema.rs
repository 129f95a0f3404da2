//! The documented schema of `explain --json` is what is written.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::programs::{Ground, Place, Running, explain, find};

/// Every field of a value, an element of a list as `[]`; targets are described once.
fn fields(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = match at {
                    "" => key.clone(),
                    _ => format!("{at}.{key}"),
                };
                into.insert(path.clone());
                let below = if key == "target" { "target" } else { &path };
                fields(value, below, into);
            }
        }
        Value::Array(list) => {
            let path = format!("{at}[]");
            into.remove(at);
            into.insert(path.clone());
            list.iter().for_each(|one| fields(one, &path, into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_is_documented() {
    let Some(program) = find("tail") else {
        return;
    };
    let place = Place::on(Ground::Disk);
    let file = place.path("dir/file");
    let command = [program.to_str().unwrap(), "-F", &file];
    let running = Running::start(&place, &command, 2);
    let mut written = BTreeSet::new();
    fields(&explain(running.pid(), &[]), "", &mut written);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explain.md");
    let page = std::fs::read_to_string(page).unwrap();
    let row = |field: &str| page.contains(&format!("| `{field}` |"));
    let holders = ["target.name"];
    let missing: Vec<&String> = written
        .iter()
        .filter(|field| !row(field) && !holders.contains(&field.as_str()))
        .filter(|field| !field.ends_with("result"))
        .collect();
    assert!(missing.is_empty(), "docs/explain.md lacks {missing:?}");
}
