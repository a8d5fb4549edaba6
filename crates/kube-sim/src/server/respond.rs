//! The forms of an answer: whole objects, metadata only, or a table for `kubectl get`.

use super::json;
use super::print;
use super::table::ResourceDef;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What the client asked for in `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Metadata,
    Table,
}

/// A form, and what a table needs to know besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) form: Form,
    pub(crate) now: Timestamp,
    /// `includeObject=Object`: whole objects in the rows instead of their metadata.
    pub(crate) whole_rows: bool,
    /// `includeObject=None`.
    pub(crate) bare_rows: bool,
}

impl Form {
    /// `None` if nothing of what the client accepts can be had.
    pub(crate) fn parse(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Object);
        }
        accept.split(',').find_map(|part| {
            let mut words = part.split(';').map(str::trim);
            let media = words.next().unwrap_or_default();
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                return None;
            }
            match words.find_map(|w| w.strip_prefix("as=")) {
                None => Some(Self::Object),
                Some("Table") => Some(Self::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Self::Metadata),
                Some(_) => None,
            }
        })
    }
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": json::at(object, &["metadata"])})
}

impl Format {
    /// One object.
    pub(crate) fn object(&self, def: &ResourceDef, object: Value) -> Value {
        match self.form {
            Form::Object => object,
            _ if json::str_at(&object, &["kind"]) == "Status" => object,
            Form::Metadata => metadata_only(&object),
            Form::Table => self.table(
                def,
                std::slice::from_ref(&object),
                true,
                &json!({"resourceVersion": json::str_at(&object, &["metadata", "resourceVersion"])}),
            ),
        }
    }

    /// A list, with its paging state in `metadata`.
    pub(crate) fn list(&self, def: &ResourceDef, mut items: Vec<Value>, metadata: &Value) -> Value {
        match self.form {
            Form::Object => {
                if !def.is_crd() {
                    // A real server leaves the type out of the items of typed lists.
                    for item in &mut items {
                        json::remove(item, &["kind"]);
                        json::remove(item, &["apiVersion"]);
                    }
                }
                json!({"kind": format!("{}List", def.kind), "apiVersion": def.api_version(), "metadata": metadata, "items": items})
            }
            Form::Metadata => {
                let items: Vec<Value> = items.iter().map(metadata_only).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
            Form::Table => self.table(def, &items, true, metadata),
        }
    }

    /// The object of a watch event; only the first table names its columns.
    pub(crate) fn watched(&self, def: &ResourceDef, object: Value, first: bool) -> Value {
        match self.form {
            Form::Table => {
                let metadata = json!({"resourceVersion": json::str_at(&object, &["metadata", "resourceVersion"])});
                self.table(def, std::slice::from_ref(&object), first, &metadata)
            }
            _ => self.object(def, object),
        }
    }

    pub(crate) fn bookmark(&self, object: Value) -> Value {
        match self.form {
            Form::Object => object,
            Form::Metadata => metadata_only(&object),
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": json::at(&object, &["metadata"]),
                "columnDefinitions": [], "rows": []})
            }
        }
    }

    fn table(&self, def: &ResourceDef, items: &[Value], with_columns: bool, metadata: &Value) -> Value {
        let columns = print::columns(def);
        let rows: Vec<Value> = items
            .iter()
            .map(|item| {
                let cells: Vec<Value> = columns.iter().map(|c| c.cell(item, self.now)).collect();
                let mut row = json!({"cells": cells});
                if self.whole_rows {
                    json::set(&mut row, &["object"], item.clone());
                } else if !self.bare_rows {
                    json::set(&mut row, &["object"], metadata_only(item));
                }
                row
            })
            .collect();
        let definitions: Vec<Value> =
            if with_columns { columns.iter().map(print::Printed::definition).collect() } else { Vec::new() };
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows})
    }
}
