//! Panels of lines as an SVG, by hand: logarithmic axes, a legend, and colors for light and for dark pages.

use std::fmt::Write;

use super::axis::Axis;

/// A line, with the color of its place in the legend.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) color: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub(crate) struct Panel {
    /// What is upwards, with its unit.
    pub(crate) title: String,
    /// What is across.
    pub(crate) across: &'static str,
    pub(crate) series: Vec<Series>,
}

const COLUMNS: usize = 2;
const WIDTH: f64 = 450.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// The legend's rows: three names in each.
const LEGEND: f64 = 58.0;

/// The page brings its own background, so that it can be read wherever it is shown.
const STYLE: &str = "<style>
.page{fill:#fff}text{fill:#24292f}.grid{stroke:#d8dee4}.minor{stroke:#eef1f4}.title{font-weight:600}
.c0{--c:#cf222e}.c1{--c:#e36209}.c2{--c:#57606a}.c3{--c:#0550ae}.c4{--c:#3d9df3}.c5{--c:#1a7f37}
.line{fill:none;stroke:var(--c);stroke-width:2}.c2.line{stroke-dasharray:5 3}.dot{fill:var(--c)}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#30363d}.minor{stroke:#1c2128}
.c0{--c:#ff6a69}.c1{--c:#f5a14b}.c2{--c:#9ea7b3}.c3{--c:#4493f8}.c4{--c:#a5d6ff}.c5{--c:#3fb950}}
</style>";

/// All panels, two in a row, below one legend.
pub(crate) fn page(panels: &[Panel], legend: &[&str]) -> String {
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * panels.len().div_ceil(COLUMNS) as f64 + LEGEND);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n{STYLE}\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    for (i, name) in legend.iter().enumerate() {
        let (x, y) = (LEFT + (i % 3) as f64 * (width - LEFT) / 3.0, 22.0 + (i / 3) as f64 * 20.0);
        line(&mut svg, i, &[(x, y), (x + 26.0, y)]);
        label(&mut svg, (x + 34.0, y + 4.0), "start", name);
    }
    for (i, panel) in panels.iter().enumerate() {
        let (x, y) = ((i % COLUMNS) as f64 * WIDTH, LEGEND + (i / COLUMNS) as f64 * HEIGHT);
        put(&mut svg, &format!("<g transform=\"translate({x} {y})\">"));
        draw(&mut svg, panel);
        put(&mut svg, "</g>");
    }
    put(&mut svg, "</svg>");
    svg
}

fn draw(svg: &mut String, panel: &Panel) {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let across = Axis::over(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let up = Axis::over(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    put(svg, &format!("<text class=\"title\" x=\"{LEFT}\" y=\"18\">{}</text>", panel.title));
    for (y, name) in up.ticks() {
        rule(svg, name.is_some(), (across.from, y), (across.to, y));
        label(svg, (across.from - 6.0, y + 4.0), "end", &name.unwrap_or_default());
    }
    for (x, name) in across.powers() {
        rule(svg, true, (x, up.from), (x, up.to));
        label(svg, (x, up.from + 16.0), "middle", &name);
    }
    label(svg, ((across.from + across.to) / 2.0, up.from + 34.0), "middle", panel.across);
    for Series { color, points } in &panel.series {
        let places: Vec<(f64, f64)> = points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        line(svg, *color, &places);
    }
}

/// A line with its dots.
fn line(svg: &mut String, color: usize, places: &[(f64, f64)]) {
    let joined: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    put(svg, &format!("<polyline class=\"c{color} line\" points=\"{}\"/>", joined.join(" ")));
    for (x, y) in places {
        put(svg, &format!("<circle class=\"c{color} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"));
    }
}

fn rule(svg: &mut String, is_named: bool, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let class = if is_named { "grid" } else { "minor" };
    put(svg, &format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
}

fn label(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    put(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}

fn put(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").expect("a String takes all");
}
