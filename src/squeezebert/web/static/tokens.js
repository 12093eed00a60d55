/**
 * Text in, token ids as the model was trained on out: what runtime/tokens.py does, with the same ids, in the browser.
 *
 * The library brings the vocabulary and cuts words into pieces. What a character becomes and where words end is asked of
 * the table that the page was built with: the library goes by the browser's own Unicode tables, which differ.
 */

// As in runtime/tokens.py
const CHARACTERS_A_TOKEN = 16;
const MARGIN = 32;
const SPACE = /[ \n\t\r]/g;

const LONE_SURROGATES = /[\ud800-\udfff]/gu;
const [SAME, DROPPED, BLANK, APART, DECOMPOSED, MAPPED] = [0, 1, 2, 3, 4, 5];
const [GAP, ALONE] = [1, 2];

/** What becomes of each character, and where words end: the table that characters.py writes. */
export class Characters {
  constructor(table) {
    this.kinds = new Uint8Array(0x110000);
    this.ends = new Uint8Array(0x110000);
    this.mapped = new Map(table.mapped);
    const kinds = [["dropped", DROPPED], ["blank", BLANK], ["apart", APART], ["decomposed", DECOMPOSED]];
    for (const [name, kind] of kinds) fill(this.kinds, table[name], kind);
    for (const [name, kind] of [["gaps", GAP], ["alone", ALONE]]) fill(this.ends, table[name], kind);
    for (const character of this.mapped.keys()) this.kinds[character.codePointAt(0)] = MAPPED;
  }

  /** The text as the tokenizer normalises it. */
  normalize(text) {
    const parts = [];
    for (const character of text) {
      switch (this.kinds[character.codePointAt(0)]) {
        case SAME: parts.push(character); break;
        case DROPPED: break;
        case BLANK: parts.push(" "); break;
        case APART: parts.push(" ", character, " "); break;
        case DECOMPOSED: parts.push(character.normalize("NFD")); break;
        default: parts.push(this.mapped.get(character));
      }
    }
    return parts.join("");
  }

  /** The words of a normalised text, and its punctuation marks one by one. */
  split(text) {
    const words = [];
    let start = 0, place = 0;
    for (const character of text) {
      const end = this.ends[character.codePointAt(0)];
      if (end) {
        if (start < place) words.push(text.slice(start, place));
        if (end === ALONE) words.push(character);
        start = place + character.length;
      }
      place += character.length;
    }
    if (start < place) words.push(text.slice(start));
    return words;
  }
}

/** Reads texts for a model. */
export class TextReader {
  /**
   * `Library` is the Tokenizer class of @huggingface/tokenizers, `json` the content of tokenizer.json, `table` that of
   * characters.json (null for a tokenizer that is not BERT's), `facts` what site.json says.
   */
  constructor(Library, json, table, facts) {
    this.backend = new Library(json, {});
    if (table !== null) {
      const characters = new Characters(table);
      this.backend.normalizer = (text) => characters.normalize(text);
      this.backend.pre_tokenizer = (text) => characters.split(text);
    }
    this.facts = facts;
  }

  /** Return {ids, types, truncated} of a text, or of a pair of them: of a pair the longer text is cut first. */
  encode(text, textPair = null) {
    const layout = textPair === null ? this.facts.layouts.single : this.facts.layouts.pair;
    const room = this.facts.max_length - specials(layout);
    const first = this.ids(text, room);
    const second = textPair === null ? [] : this.ids(textPair, room);
    const [keepFirst, keepSecond] = longestFirst(first.length, second.length, room);
    const parts = [
      layout.before,
      [first.slice(0, keepFirst), Array(keepFirst).fill(layout.types[0])],
      layout.between,
      [second.slice(0, keepSecond), Array(keepSecond).fill(layout.types[1])],
      layout.after,
    ];
    const ids = parts.flatMap((part) => part[0]);
    const types = this.facts.token_types ? parts.flatMap((part) => part[1]) : ids.map(() => 0);
    return { ids, types, truncated: keepFirst < first.length || keepSecond < second.length };
  }

  /** The ids of a text: all of them, or more than `room` of the first ones. */
  ids(text, room) {
    // Half a surrogate pair is not a character
    text = text.replace(LONE_SURROGATES, "\ufffd");
    let limit = CHARACTERS_A_TOKEN * this.facts.max_length;
    let characters = 0, place = 0; // the code points before `place`, which counts UTF-16 units
    for (;;) {
      while (characters < limit && place < text.length) {
        place += text.codePointAt(place) > 0xffff ? 2 : 1;
        characters++;
      }
      if (place >= text.length) break;
      SPACE.lastIndex = place;
      const space = SPACE.exec(text);
      if (space === null) break;
      const ids = this.plainIds(text.slice(0, space.index));
      if (ids.length > room + MARGIN) return ids;
      while (place <= space.index) {
        place += text.codePointAt(place) > 0xffff ? 2 : 1;
        characters++;
      }
      limit = 4 * characters;
    }
    return this.plainIds(text);
  }

  plainIds(text) {
    return text === "" ? [] : this.backend.encode(text, { add_special_tokens: false }).ids;
  }
}

/** How many special tokens a layout has. */
export function specials(layout) {
  return layout.before[0].length + layout.between[0].length + layout.after[0].length;
}

/** How many tokens of each text stay where both share `room`. */
export function longestFirst(first, second, room) {
  if (first + second <= room) return [first, second];
  if (!second) return [room, 0];
  let short = Math.min(first, second), long = Math.max(first, second);
  long = short > room ? short : Math.max(short, room - short);
  if (short + long > room) {
    short = Math.floor(room / 2);
    long = short + (room % 2);
  }
  return first <= second ? [short, long] : [long, short];
}

function fill(places, ranges, kind) {
  for (const [first, last] of ranges) places.fill(kind, first, last + 1);
}
