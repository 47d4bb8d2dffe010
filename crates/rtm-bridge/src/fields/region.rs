//! Regions: a name of Agora's table, or a name and a base URL.

use rtm_source::{Region, RegionError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::problem::NAME_PATTERN;

/// A region: a name of the built-in table, or a name and a base URL.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionConfig {
    /// The tag. A name, and no promise that the host reads that region's store alone.
    pub name: String,
    /// The base URL; may have a path. None: the table's.
    pub base_url: Option<String>,
    /// Accept `http://` to a host that is not loopback. Shown in a metric.
    pub allow_insecure_http: bool,
}

impl RegionConfig {
    /// The region that is named.
    ///
    /// # Errors
    ///
    /// [`RegionError`] for an unknown name or an unacceptable base URL.
    pub fn region(&self) -> Result<Region, RegionError> {
        match &self.base_url {
            None => Region::builtin(&self.name),
            Some(base_url) => Region::new(&self.name, base_url, self.allow_insecure_http),
        }
    }
}

/// A region that the built-in table does not know.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    /// The tag, in metrics, topics and subjects. A name, and no promise that the host reads that region's store alone.
    #[schemars(regex(pattern = NAME_PATTERN))]
    name: String,
    /// The base URL; may have a path, which is kept.
    base_url: String,
    /// Accept `http://` to a host that is not loopback. Shown in a metric. Default false.
    #[serde(default)]
    allow_insecure_http: bool,
}

impl JsonSchema for RegionConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RegionConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<RegionTable>();
        json_schema!({
            "description": "A region of Agora's, or a name and a base URL.",
            "anyOf": [
                { "type": "string", "enum": Region::builtin_names().collect::<Vec<_>>() },
                table,
            ],
        })
    }
}

impl<'de> Deserialize<'de> for RegionConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RegionConfig, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = RegionConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a region's name, or { name = \"…\", base_url = \"https://…\" }")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<RegionConfig, E> {
                Ok(RegionConfig {
                    name: name.to_owned(),
                    base_url: None,
                    allow_insecure_http: false,
                })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<RegionConfig, A::Error> {
                let table =
                    RegionTable::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(RegionConfig {
                    name: table.name,
                    base_url: Some(table.base_url),
                    allow_insecure_http: table.allow_insecure_http,
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
