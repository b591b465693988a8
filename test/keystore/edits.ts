/** What somebody did by hand to the row of `document(1)`: SQL that PostgreSQL, MySQL and SQLite all take. */
export const EDITS: Record<string, string> = {
  'another epoch': 'epoch = 2',
  'an epoch beyond 2^53': 'epoch = 9007199254740993',
  'no document': "document = ''",
  'a document that is no JSON': "document = 'ROOT_KEY=hunter2'",
  'a document that is null': "document = 'null'",
  'a document that is a list': "document = '[]'",
  'a torn document': 'document = substr(document, 1, 60)',
  'more behind it': "document = replace(document, '}]}}', '}]}}x')",
  'an unknown property': `document = replace(document, '"epoch":1', '"note":1,"epoch":1')`,
  'an epoch that is text': `document = replace(document, '"epoch":1', '"epoch":"1"')`,
  'another epoch within': `document = replace(document, '"epoch":1', '"epoch":2')`,
  'no mac': `document = replace(document, '"mac"', '"mag"')`,
}
