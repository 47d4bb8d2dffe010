use super::*;

#[test]
fn variables_are_replaced() {
    let template = Template::parse("rtm.{app}.{stream}_events", STATIC).unwrap();
    let name = template.render(|variable, text| text.push_str(variable.name()));
    assert_eq!(name, "rtm.app.stream_events");
    assert_eq!(template.with_all("*"), "rtm.*.*_events");
}

#[test]
fn mistakes_are_named() {
    for (text, says) in [
        ("rtm.{regoin}", "unknown variable `{regoin}`"),
        ("rtm.{user_id}", "unknown variable `{user_id}`"),
        ("rtm.{app", "without its `}`"),
        ("rtm.app}", "without its `{`"),
        ("", "is empty"),
    ] {
        let error = Template::parse(text, STATIC).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}
