import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';

const colours = { red: '#d02020', green: '#20a040', blue: '#2040d0', yellow: '#e0c020' } as const;

/** Plain squares of four colours with questions in LLaVA's format, and a task of the same kind; every answer is to be seen in the image. */
export async function madeUpImages(
  folder: string,
  side = 16,
): Promise<{ conversations: string; captions: string; task: string }> {
  mkdirSync(join(folder, 'images'), { recursive: true });
  const names = Object.keys(colours);
  for (const [name, background] of Object.entries(colours))
    await sharp({ create: { width: side + 4, height: side, channels: 3, background } })
      .png()
      .toFile(join(folder, 'images', `${name}.png`));
  const records = names.flatMap((name, i) => [
    ...Array.from({ length: 4 }, () => ({
      image: `images/${name}.png`,
      conversations: [
        { from: 'human', value: '<image>\nWhat colour is this?' },
        { from: 'gpt', value: name },
      ],
    })),
    {
      image: `images/${name}.png`,
      conversations: [
        { from: 'human', value: `<image>\nIs this ${names[(i + 1) % 4]}?` },
        { from: 'gpt', value: 'no' },
        { from: 'human', value: `Is this ${name}?` },
        { from: 'gpt', value: 'yes' },
      ],
    },
    {
      conversations: [
        { from: 'human', value: 'Name a colour.' },
        { from: 'gpt', value: name },
      ],
    },
  ]);
  const conversations = join(folder, 'conversations.json');
  writeFileSync(conversations, JSON.stringify(records));
  const captions = join(folder, 'captions.jsonl');
  const captioned = names.map((name) => ({
    image: `images/${name}.png`,
    conversations: [
      { from: 'human', value: '<image>' },
      { from: 'gpt', value: name },
    ],
  }));
  writeFileSync(captions, [...captioned, ...captioned].map((record) => JSON.stringify(record)).join('\n'));
  const task = join(folder, 'colours.yaml');
  const rows = names.map((name, i) => ({ image: `images/${name}.png`, answer: i }));
  writeFileSync(join(folder, 'colours.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  writeFileSync(
    task,
    `task: colours
dataset_path: json
dataset_kwargs: { data_files: colours.jsonl }
output_type: multiple_choice
doc_to_visual: image
doc_to_text: "What colour is this?"
doc_to_choice: [${names.join(', ')}]
doc_to_target: answer
metric_list: [{ metric: acc }]
`,
  );
  return { conversations, captions, task };
}
