//! Templates of topics and subjects: literal text with `{variables}`.

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

/// What a template may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The `name` of the app.
    App,
    /// Its App ID.
    AppId,
    /// The name of the region that the event was read from.
    Region,
    /// `user` or `channel`.
    Stream,
    /// The event's type, escaped.
    Type,
    /// The event's user, escaped.
    UserId,
    /// The event's channel, escaped; the marker of the empty token for user events.
    ChannelId,
}

/// What the variables of a template that come from configuration can stand for, of one App ID.
#[derive(Debug, Clone)]
pub struct AppNames<'a> {
    /// The `name` of the app.
    pub app: &'a str,
    /// Its App ID.
    pub app_id: &'a str,
    /// The names of its regions.
    pub regions: Vec<&'a str>,
}

/// The variables whose values come from configuration alone.
pub const STATIC: &[Variable] = ALL.split_at(4).0;

/// All variables, those of [`STATIC`] first.
pub const ALL: &[Variable] = &[
    Variable::App,
    Variable::AppId,
    Variable::Region,
    Variable::Stream,
    Variable::Type,
    Variable::UserId,
    Variable::ChannelId,
];

impl Variable {
    fn name(self) -> &'static str {
        match self {
            Variable::App => "app",
            Variable::AppId => "app_id",
            Variable::Region => "region",
            Variable::Stream => "stream",
            Variable::Type => "type",
            Variable::UserId => "user_id",
            Variable::ChannelId => "channel_id",
        }
    }
}

impl Template {
    /// Parses `text`, in which only the variables in `allowed` may stand.
    ///
    /// # Errors
    ///
    /// A sentence that names the unknown variable and lists the known ones, or the brace that has no partner.
    pub fn parse(text: &str, allowed: &[Variable]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            if rest[open..].starts_with('}') {
                return Err(format!("`{text}` has a `}}` without its `{{`"));
            }
            let Some(length) = rest[open..].find('}') else {
                return Err(format!("`{text}` has a `{{` without its `}}`"));
            };
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            }
            let name = &rest[open + 1..open + length];
            let Some(variable) = allowed.iter().find(|known| known.name() == name) else {
                let known = allowed.iter().map(|known| format!("{{{}}}", known.name()));
                let known = known.collect::<Vec<_>>().join(" ");
                return Err(format!(
                    "unknown variable `{{{name}}}` in `{text}`; known here: {known}"
                ));
            };
            parts.push(Part::Variable(*variable));
            rest = &rest[open + length + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Template { parts })
    }

    /// Whether every variable is in `variables`.
    pub fn uses_only(&self, variables: &[Variable]) -> bool {
        self.parts.iter().all(|part| {
            matches!(part, Part::Literal(_))
                || variables.iter().any(|v| *part == Part::Variable(*v))
        })
    }

    /// The template with each variable replaced by what `value` writes for it.
    pub fn render(&self, mut value: impl FnMut(Variable, &mut String)) -> String {
        let mut rendered = String::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Literal(text) => rendered.push_str(text),
                Part::Variable(variable) => value(*variable, &mut rendered),
            }
        }
        rendered
    }

    /// Every name that the template leads to with these apps and those of their streams that `takes` is true of, with
    /// `part` for each part of an event. Some may come more than once.
    pub fn names(
        &self,
        apps: &[AppNames<'_>],
        part: &str,
        takes: impl Fn(&str, &str) -> bool,
    ) -> Vec<String> {
        let mut names = Vec::new();
        for app in apps {
            for region in &app.regions {
                for stream in ["user", "channel"] {
                    if !takes(app.app, stream) {
                        continue;
                    }
                    names.push(self.render(|variable, text| {
                        text.push_str(match variable {
                            Variable::App => app.app,
                            Variable::AppId => app.app_id,
                            Variable::Region => region,
                            Variable::Stream => stream,
                            Variable::Type | Variable::UserId | Variable::ChannelId => part,
                        });
                    }));
                }
            }
        }
        names
    }

    /// The template with every variable replaced by `value`, for validation and for subjects to subscribe to.
    pub fn with_all(&self, value: &str) -> String {
        self.render(|_, rendered| rendered.push_str(value))
    }
}

#[cfg(test)]
mod tests;
