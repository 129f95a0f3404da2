//! Problems of a scenario, shown in the lines that they are in.

use std::path::Path;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use scenario::Problem;

/// Every problem with its line underlined, coloured; `anstream` takes the colours off where they
/// cannot be shown.
#[must_use]
pub fn render(path: &Path, text: &str, problems: &[Problem]) -> String {
    render_with(&Renderer::styled(), path, text, problems)
}

fn render_with(renderer: &Renderer, path: &Path, text: &str, problems: &[Problem]) -> String {
    let path = path.to_string_lossy();
    let renderer = renderer.clone().decor_style(DecorStyle::Ascii);
    let reports: Vec<String> = problems
        .iter()
        .map(|problem| {
            let report = report(&path, text, problem);
            renderer.render(&[report])
        })
        .collect();
    reports.join("\n\n")
}

fn report<'a>(path: &'a str, text: &'a str, problem: &Problem) -> Group<'a> {
    let primary = AnnotationKind::Primary.span(within(text, problem.span.clone()));
    let mut snippet = Snippet::source(text).path(path).annotation(primary);
    if let Some((span, label)) = problem.related() {
        let context = AnnotationKind::Context.span(within(text, span));
        snippet = snippet.annotation(context.label(label));
    }
    let title = Level::ERROR.primary_title(problem.kind.to_string());
    let report = title.element(snippet);
    match problem.help() {
        Some(help) => report.element(Level::HELP.message(help)),
        None => report,
    }
}

/// The span, at least one character wide where the text has one: an empty span draws nothing.
fn within(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    if !span.is_empty() {
        return span;
    }
    let width = text[span.start..].chars().next();
    let width = width.filter(|c| *c != '\n').map_or(0, char::len_utf8);
    span.start..span.start + width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_in_its_line_with_what_may_have_been_meant() {
        let text =
            "# A watch is kept.\ninotify_init1(0) = n\ninotify_add_watch(n, \"d\", IN_MODFY)\n";
        let problems = scenario::parse_and_check(text).unwrap_err();
        let shown = render_with(&Renderer::plain(), Path::new("x.scn"), text, &problems);
        let expected = r#"error: unknown flag `IN_MODFY`
 --> x.scn:3:27
  |
3 | inotify_add_watch(n, "d", IN_MODFY)
  |                           ^^^^^^^^
  |
  = help: did you mean `IN_MODIFY`?"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_earlier_place_is_shown_too() {
        let text = "# A name is bound.\ndup(3) = a\ndup(3) = a\nclose(a)\n";
        let problems = scenario::parse_and_check(text).unwrap_err();
        let shown = render_with(&Renderer::plain(), Path::new("x.scn"), text, &problems);
        let expected = "error: `a` is bound twice
 --> x.scn:3:10
  |
2 | dup(3) = a
  |          - first bound here
3 | dup(3) = a
  |          ^";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_problem_at_the_end_of_the_text_is_shown() {
        let text = "# It is cut off.\nopen(\"f\"";
        let problems = scenario::parse_and_check(text).unwrap_err();
        let shown = render_with(&Renderer::plain(), Path::new("x.scn"), text, &problems);
        assert!(shown.contains("x.scn:2:9"), "{shown}");
    }
}
