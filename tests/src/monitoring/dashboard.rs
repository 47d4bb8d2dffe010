//! A Grafana dashboard, as far as its queries go.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// The whole document.
    pub document: Value,
    /// Its panels, without rows, in order, those of closed rows too.
    pub panels: Vec<Panel>,
    /// What its annotations ask Prometheus, with variables.
    pub annotations: Vec<String>,
    /// Its variables that are queries.
    pub variables: Vec<Variable>,
}

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// The variable that its row is repeated for.
    pub repeated: Option<String>,
    /// Its queries.
    pub queries: Vec<Query>,
    /// The panel's own part of the document.
    pub document: Value,
}

/// A query of a panel.
#[derive(Debug, Clone)]
pub struct Query {
    /// PromQL, with variables.
    pub expression: String,
    /// How its series are named.
    pub legend: String,
}

/// A variable whose values are those of a label.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The series, with variables.
    pub selector: String,
    /// The label.
    pub label: String,
}

impl Dashboard {
    /// Reads a dashboard.
    ///
    /// # Errors
    ///
    /// With what is missing.
    pub fn parse(text: &str) -> Result<Dashboard> {
        let document: Value = serde_json::from_str(text)?;
        let mut panels = Vec::new();
        let mut repeated = None;
        for panel in document["panels"].as_array().context("no panels")? {
            if panel["type"] == "row" {
                repeated = panel["repeat"].as_str().map(str::to_owned);
                // A row that is closed holds its panels.
                for inside in panel["panels"].as_array().into_iter().flatten() {
                    panels.push(Panel::of(inside, repeated.as_deref())?);
                }
            } else {
                panels.push(Panel::of(panel, repeated.as_deref())?);
            }
        }
        let annotations = document["annotations"]["list"].as_array();
        let annotations = annotations.context("no annotations.list")?.iter();
        let annotations = annotations
            .filter_map(|annotation| annotation["expr"].as_str())
            .map(str::to_owned)
            .collect();
        let list = document["templating"]["list"].as_array();
        let variables = list.context("no templating.list")?.iter();
        let variables = variables
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let definition = string(variable, "definition")?;
                // The same twice: Grafana shows the one and asks the other.
                ensure!(
                    variable["query"]["query"] == *definition,
                    "definition and query differ: {variable}"
                );
                let inner = definition
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .and_then(|rest| rest.rsplit_once(", "))
                    .with_context(|| format!("not label_values(series, label): {definition}"))?;
                Ok(Variable {
                    name: string(variable, "name")?,
                    selector: inner.0.to_owned(),
                    label: inner.1.to_owned(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Dashboard {
            panels,
            variables,
            annotations,
            document,
        })
    }
}

impl Panel {
    fn of(panel: &Value, repeated: Option<&str>) -> Result<Panel> {
        let title = string(panel, "title")?;
        let targets = panel["targets"].as_array();
        let targets = targets.with_context(|| format!("{title}: no targets"))?;
        let query = |target: &Value| -> Result<Query> {
            Ok(Query {
                expression: string(target, "expr")?,
                legend: string(target, "legendFormat")?,
            })
        };
        Ok(Panel {
            queries: targets.iter().map(query).collect::<Result<_>>()?,
            title,
            repeated: repeated.map(str::to_owned),
            document: panel.clone(),
        })
    }
}

impl Query {
    /// The labels that the legend names, as `{{label}}`.
    #[must_use]
    pub fn legend_labels(&self) -> Vec<&str> {
        let parts = self.legend.split("{{").skip(1);
        parts
            .filter_map(|part| part.split_once("}}"))
            .map(|(label, _)| label.trim())
            .collect()
    }
}

fn string(value: &Value, key: &str) -> Result<String> {
    let found = value[key].as_str();
    Ok(found
        .with_context(|| format!("no {key} in {value}"))?
        .to_owned())
}
