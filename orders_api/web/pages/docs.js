// Shows /openapi.json, logs a person in, and follows the system's light or dark theme. Nothing is stored.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  onComplete: follow, // it has a theme of its own
});

const form = document.getElementById("login");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = form.querySelector("output");
  const button = form.querySelector("button");
  const { email, password } = Object.fromEntries(new FormData(form));
  button.disabled = true;
  said.className = "";
  try {
    const answer = await fetch("/auth/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ email, password }),
    });
    const document = await answer.json();
    if (!answer.ok) throw new Error(`${document.title}. ${document.detail}`);
    ui.preauthorizeApiKey("token", document.access_token);
    form.elements.password.value = "";
    const minutes = Math.round(document.expires_in / 60);
    said.textContent = `Logged in as ${email}: for ${minutes} minutes every request below carries your token.`;
  } catch (error) {
    said.className = "wrong";
    said.textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
