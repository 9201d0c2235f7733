"use strict";
// Each wipe takes its two pictures from those beside it, so that no picture is in the page twice.
for (const view of document.querySelectorAll(".view")) {
  const wipe = view.querySelector(".wipe");
  const choice = wipe.querySelector("select");
  const over = wipe.querySelector(".over");
  const slider = wipe.querySelector("input");
  const pick = () => {
    const made = view.querySelector(`[data-made="${choice ? choice.value : 0}"]`);
    over.src = made.src;
    over.alt = made.alt;
  };
  wipe.querySelector(".under").src = view.querySelector("[data-truth]").src;
  pick();
  if (choice) choice.addEventListener("change", pick);
  slider.addEventListener("input", () => wipe.style.setProperty("--cut", `${slider.value}%`));
  wipe.hidden = false;
}
