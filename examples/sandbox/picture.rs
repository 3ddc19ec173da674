//! A desktop's stand-in: a wallpaper, a window with some text that is being written, a clock, as a PNG.

const WIDTH: usize = 320;
const HEIGHT: usize = 180;

/// Colours that the wallpaper runs through; the palette begins with them.
const SHADES: usize = 60;

// The colours behind them, by their places in the palette.
const PAPER: u8 = SHADES as u8;
const BAR: u8 = PAPER + 1;
const LINE: u8 = PAPER + 2;
const INK: u8 = PAPER + 3;
const DOCK: u8 = PAPER + 4;
const LIGHT: u8 = PAPER + 5;
const BUTTONS: [u8; 3] = [PAPER + 6, PAPER + 7, PAPER + 8];
const PAINTS: [[u8; 3]; 9] = [
    [250, 250, 248],
    [226, 229, 234],
    [176, 184, 196],
    [44, 52, 66],
    [52, 58, 76],
    [244, 246, 250],
    [236, 106, 94],
    [244, 190, 79],
    [97, 197, 84],
];

/// A pixel of a digit is this many of the picture's.
const SCALE: usize = 6;

/// `0` to `9` and `:`, three pixels wide and five high, a row each three bits.
const DIGITS: [u16; 11] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
    0b000_010_000_010_000,
];

/// The desktop of this name, with these digits and colons on its clock, and so much written in its window.
pub(crate) fn png(name: &str, clock: &str, written: usize) -> Vec<u8> {
    let mut picture = Picture { pixels: (0..WIDTH * HEIGHT).map(wallpaper).collect() };
    picture.window(16, 18, 288, 132, written);
    picture.text(clock, 102, 62);
    picture.fill(0, 164, WIDTH, 16, DOCK);
    for (place, colour) in [LIGHT, BUTTONS[0], BUTTONS[1], BUTTONS[2], LINE].into_iter().enumerate() {
        picture.fill(128 + 13 * place, 168, 8, 8, colour);
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(palette(name));
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().expect("a picture of a fixed size");
    writer.write_image_data(&picture.pixels).expect("as many pixels as the header says");
    writer.finish().expect("a vector takes all");
    out
}

struct Picture {
    pixels: Vec<u8>,
}

impl Picture {
    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: u8) {
        for row in self.pixels.chunks_exact_mut(WIDTH).skip(y).take(height) {
            row[x..x + width].fill(colour);
        }
    }

    /// A window with lines of text, of which so many letters are written yet, over and over.
    fn window(&mut self, x: usize, y: usize, width: usize, height: usize, written: usize) {
        const LINES: [usize; 6] = [62, 48, 66, 30, 58, 40];
        self.fill(x + 3, y + 3, width, height, DOCK); // its shadow
        self.fill(x, y, width, height, PAPER);
        self.fill(x, y, width, 12, BAR);
        for (place, colour) in BUTTONS.into_iter().enumerate() {
            self.fill(x + 5 + 9 * place, y + 4, 5, 5, colour);
        }
        let mut left = written % LINES.iter().sum::<usize>();
        for (place, line) in LINES.into_iter().enumerate() {
            let letters = left.min(line);
            self.fill(x + 10, y + 24 + 17 * place, letters, 5, LINE);
            if letters < line {
                return self.fill(x + 11 + letters, y + 22 + 17 * place, 2, 9, INK);
            }
            left -= letters;
        }
    }

    /// Digits and colons, from this place on; one of a digit's pixels is left free between two.
    fn text(&mut self, text: &str, x: usize, y: usize) {
        for (place, glyph) in text.bytes().enumerate() {
            let glyph = DIGITS[if glyph == b':' { 10 } else { usize::from(glyph % 16) % 10 }];
            for bit in (0..15).filter(|bit| glyph >> (14 - bit) & 1 == 1) {
                let (column, row) = (4 * place + bit % 3, bit / 3);
                self.fill(x + column * SCALE, y + row * SCALE, SCALE, SCALE, INK);
            }
        }
    }
}

/// Diagonal bands of the shades.
fn wallpaper(pixel: usize) -> u8 {
    let (x, y) = (pixel % WIDTH, pixel / WIDTH);
    ((x + 2 * y) * (SHADES - 1) / (WIDTH + 2 * HEIGHT)) as u8
}

/// The shades of a wallpaper, of a hue for each name, and the paints.
fn palette(name: &str) -> Vec<u8> {
    const HUES: [[u8; 3]; 5] = [[38, 84, 160], [126, 58, 140], [20, 116, 110], [160, 78, 40], [60, 96, 52]];
    let hue = HUES[name.bytes().map(usize::from).sum::<usize>() % HUES.len()];
    let shade = |place: usize| hue.map(|part| (usize::from(part) * (SHADES + place) / (2 * SHADES) + place / 2) as u8);
    (0..SHADES).map(shade).chain(PAINTS).flatten().collect()
}
