//! Panels of lines as an SVG, by hand: axes in powers of ten, a legend, and nothing else.

use std::fmt::Write;

/// A line, with the color of its place in the legend.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) color: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) series: Vec<Series>,
}

const COLORS: [&str; 6] = ["#c0392b", "#e59866", "#222222", "#2471a3", "#76b7e8", "#239b56"];
const COLUMNS: usize = 3;
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 46.0;
const LEGEND: f64 = 34.0;

/// All panels, three in a row, below one legend.
pub(crate) fn page(panels: &[Panel], legend: &[&str]) -> String {
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * panels.len().div_ceil(COLUMNS) as f64 + LEGEND);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (i, name) in legend.iter().enumerate() {
        let x = 20.0 + i as f64 * (width - 40.0) / legend.len() as f64;
        let color = COLORS[i % COLORS.len()];
        put(&mut svg, &format!("<rect x=\"{x:.0}\" y=\"12\" width=\"14\" height=\"4\" fill=\"{color}\"/>"));
        label(&mut svg, x + 20.0, 18.0, "start", name);
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
    let across = Axis::over(points().map(|point| point.0), MARGIN, WIDTH - 14.0);
    let up = Axis::over(points().map(|point| point.1), HEIGHT - 30.0, 24.0);
    label(svg, MARGIN, 14.0, "start", &panel.title);
    for (power, x) in across.ticks() {
        rule(svg, (x, up.from), (x, up.to));
        label(svg, x, up.from + 14.0, "middle", &power);
    }
    for (power, y) in up.ticks() {
        rule(svg, (across.from, y), (across.to, y));
        label(svg, across.from - 5.0, y + 4.0, "end", &power);
    }
    for Series { color, points } in &panel.series {
        let color = COLORS[color % COLORS.len()];
        let places: Vec<(f64, f64)> = points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = line.join(" ");
        put(svg, &format!("<polyline points=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\"/>"));
        for (x, y) in places {
            put(svg, &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\" fill=\"{color}\"/>"));
        }
    }
}

/// Powers of ten between two places.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the power of ten below all figures to the one above.
    fn over(figures: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let powers = figures.filter(|figure| *figure > 0.0).map(f64::log10);
        let (least, most) =
            powers.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), power| (least.min(power), most.max(power)));
        if least > most {
            return Self { least: 0.0, most: 1.0, from, to };
        }
        let least = least.floor();
        Self { least, most: most.ceil().max(least + 1.0), from, to }
    }

    fn place(&self, figure: f64) -> f64 {
        let part = (figure.max(f64::MIN_POSITIVE).log10() - self.least) / (self.most - self.least);
        self.from + part.max(0.0) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (String, f64)> {
        (self.least as i32..=self.most as i32).map(|power| {
            let figure = 10_f64.powi(power);
            (figure.to_string(), self.place(figure))
        })
    }
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let line = format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>");
    put(svg, &line);
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    put(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}

fn put(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").expect("a String takes all");
}
