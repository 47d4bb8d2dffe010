//! The configuration's JSON Schema, made of the very types that read it.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::Config;
use crate::fields::problem::NAME_PATTERN;
use crate::sinks::SinkConfig;

/// The JSON Schema (2020-12) of a configuration file.
///
/// It says what types can say: keys, types, ranges, what excludes what. What depends on files, on other keys or on a
/// template's variables is for [`Config::load`].
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.transforms.push(Box::new(NoNull));
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

/// `sinks`: each by its `type`, which defaults to its name.
pub(super) fn sinks(generator: &mut SchemaGenerator) -> Schema {
    let types = SinkConfig::schemas(generator);
    let any: Vec<&Schema> = types.iter().map(|(_, schema)| schema).collect();
    let named = types.iter().map(|(name, schema)| {
        let by_type = json_schema!({
            "if": { "required": ["type"] },
            "then": { "oneOf": any },
            "else": schema,
        });
        ((*name).to_owned(), by_type.to_value())
    });
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": NAME_PATTERN },
        "properties": serde_json::Map::from_iter(named),
        "additionalProperties": { "required": ["type"], "oneOf": any },
    })
}

/// TOML has no null: a key that may be missing is not one that may be null.
#[derive(Debug, Clone)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if schema.get("default").is_some_and(Value::is_null) {
            schema.remove("default");
        }
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = &mut types[..] {
                let only = only.take();
                schema.insert("type".to_owned(), only);
            }
        }
        let Some(Value::Array(any)) = schema.get_mut("anyOf") else {
            return;
        };
        let before = any.len();
        any.retain(|one| one.get("type").is_none_or(|name| name != "null"));
        if before != any.len()
            && let [Value::Object(only)] = &mut any[..]
        {
            let only = std::mem::take(only);
            schema.remove("anyOf");
            schema.ensure_object().extend(only);
        }
    }
}
