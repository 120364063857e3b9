export { LibmoeError } from './native/index.ts';
