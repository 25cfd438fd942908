/** What is shown where there is nothing to show: empty, loading, stale, refused; each with what to do next. */

import { useViewer } from "./viewer";

const KERAS = `from neural_callbacks import NeuralDbgCallback

watch = NeuralDbgCallback(log_dir="runs")
model.fit(x, y, callbacks=[watch])`;

const PYTORCH = `from neural_callbacks import NeuralDbg

with NeuralDbg(model, optimizer, log_dir="runs"):
    ...  # your own training loop, as it is`;

/** There is no session in the log directory. */
export function NoSession() {
  const { store } = useViewer();
  return (
    <div class="empty">
      <h2>No training recorded here yet</h2>
      <p>
        This log directory holds no NeuralDbg session. Add one line to your training, point both at the same folder, and
        this page fills by itself.
      </p>
      {store.directoryNotices.value.map((sentence) => (
        <Notice key={sentence} sentence={sentence} />
      ))}
      <div class="snippets">
        <Snippet title="Keras" text={KERAS} />
        <Snippet title="PyTorch" text={PYTORCH} />
        <Snippet title="A .neural file" text="neural debug model.neural" />
      </div>
      <p class="dim">
        TensorBoard reads the folder that it was started with: <code>tensorboard --logdir runs</code>
      </p>
    </div>
  );
}

function Snippet({ title, text }: { title: string; text: string }) {
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <pre>{text}</pre>
    </figure>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      <i class="spinner" /> {what}
    </p>
  );
}

/** A calm line about something that went wrong while what is shown stays. */
export function Notice({ sentence }: { sentence: string }) {
  return (
    <p class="notice" role="status">
      {sentence}
    </p>
  );
}

/** In place of a picture: it is on its way, or there will be none. */
export function Missing(props: { recorded: boolean; kind: string; room: number; lacking?: boolean }) {
  const { recorded, kind, room, lacking = false } = props;
  const { store } = useViewer();
  const session = store.session.value;
  const name = kind.replaceAll("_", " ");
  return (
    <div class="missing" style={{ minHeight: `${Math.min(room, 220)}px` }}>
      {lacking ? (
        <p>This layer has no parameters, and so no {name}. Choose another in the picture or the table.</p>
      ) : recorded ? (
        <Loading what={`Loading ${name}`} />
      ) : (
        <p>
          {session?.status === "live"
            ? `No ${name} recorded yet; they come with the next sampled step.`
            : `This run recorded no ${name}.`}
        </p>
      )}
    </div>
  );
}

/** How the connection stands, where that is worth a line. */
export function ConnectionLine() {
  const { store } = useViewer();
  const connection = store.connection.value;
  if (connection.state === "stale") {
    return (
      <p class="connection" role="status">
        <b>Not up to date.</b> {connection.sentence} What you see is the last that was heard; it goes on by itself.
      </p>
    );
  }
  if (connection.state === "refused") {
    return (
      <p class="connection" role="alert">
        <b>The server cannot show this.</b> {connection.sentence} Choose another run <kbd>r</kbd>.
      </p>
    );
  }
  return null;
}
