/* Two short tones: made here, so that there is no file to fetch. */

export function sound() {
  const audio = new AudioContext();
  for (const [at, pitch] of [[0, 660], [0.18, 880]]) {
    const tone = new OscillatorNode(audio, { frequency: pitch });
    const level = new GainNode(audio, { gain: 0.15 });
    level.gain.setTargetAtTime(0, audio.currentTime + at + 0.1, 0.03);
    tone.connect(level).connect(audio.destination);
    tone.start(audio.currentTime + at);
    tone.stop(audio.currentTime + at + 0.3);
  }
  setTimeout(() => audio.close(), 1000);
}
